//! How the scripted registry takes what is written.

use std::io::{self, BufRead, Read};

use tofufs::digest::Digest;

use super::{Behaviour, Reply, Seen, State};

/// Takes a request's body as the behaviour has it.
pub(super) fn take(
    stream: &mut impl BufRead,
    length: usize,
    behaviour: &Behaviour,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    match behaviour {
        Behaviour::TakeSlowly { piece, pause } => {
            while body.len() < length {
                std::thread::sleep(*pause);
                let want = (*piece).min(length - body.len()) as u64;
                if stream.by_ref().take(want).read_to_end(body)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Behaviour::TakeSome(bytes) => {
            stream.by_ref().take((*bytes).min(length) as u64).read_to_end(body)?;
        }
        _ => {
            stream.by_ref().take(length as u64).read_to_end(body)?;
            if body.len() < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    Ok(())
}

/// The honest answer to POST and PUT.
pub(super) fn written(state: &mut State, seen: &Seen, rest: &str) -> Reply {
    let (rest, query) =
        rest.split_once('?').unwrap_or((rest, seen.path.split_once('?').map_or("", |(_, q)| q)));
    if let Some((repo, reference)) = rest.split_once("/manifests/") {
        return manifest(state, seen, repo, reference);
    }
    match rest.split_once("/blobs/uploads/") {
        Some((repo, "")) if seen.method == "POST" => {
            state.uploads_begun += 1;
            let id = format!("upload-{}", state.uploads_begun);
            state.uploads.insert(id.clone());
            let location = format!("/v2/{repo}/blobs/uploads/{id}?_state=a%2Fb%3D");
            Reply::new(202, "text/plain", "").with("Location", location).with("Range", "0-0")
        }
        Some((_, id)) if seen.method == "PUT" => {
            if !state.uploads.remove(id) {
                return Reply::error(404, "BLOB_UPLOAD_UNKNOWN");
            }
            let Some(wanted) = query.split('&').find_map(|p| p.strip_prefix("digest=")) else {
                return Reply::error(400, "DIGEST_INVALID");
            };
            let Ok(digest) = wanted.parse::<Digest>() else {
                return Reply::error(400, "DIGEST_INVALID");
            };
            if Digest::of_with(digest.algorithm(), &seen.body) != digest
                || !query.contains("_state=a%2Fb%3D")
            {
                return Reply::error(400, "DIGEST_INVALID");
            }
            state.blobs.insert(digest.to_string(), seen.body.clone());
            Reply::new(201, "text/plain", "").with("Docker-Content-Digest", digest.to_string())
        }
        _ => Reply::error(404, "NAME_UNKNOWN"),
    }
}

/// The honest answer to DELETE: a manifest goes by its digest, and with it the tags that stand for
/// it.
pub(super) fn removed(state: &mut State, rest: &str) -> Reply {
    let Some((repo, digest)) =
        rest.split_once("/manifests/").filter(|(_, digest)| digest.contains(':'))
    else {
        return Reply::error(405, "UNSUPPORTED");
    };
    let Some((_, bytes)) = state.manifests.remove(&(repo.to_owned(), digest.to_owned())) else {
        return Reply::error(404, "MANIFEST_UNKNOWN");
    };
    let gone: Vec<_> = state
        .manifests
        .iter()
        .filter(|((of, _), (_, other))| of == repo && *other == bytes)
        .collect();
    let gone: Vec<_> = gone.into_iter().map(|(key, _)| key.clone()).collect();
    for (repo, tag) in gone {
        state.tags.entry(repo.clone()).or_default().remove(&tag);
        state.manifests.remove(&(repo, tag));
    }
    Reply::new(202, "text/plain", "")
}

fn manifest(state: &mut State, seen: &Seen, repo: &str, reference: &str) -> Reply {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(&seen.body) else {
        return Reply::error(400, "MANIFEST_INVALID");
    };
    let names = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    let held = |entry: &serde_json::Value| {
        state.blobs.contains_key(entry["digest"].as_str().unwrap_or_default())
    };
    let known = |entry: &serde_json::Value| {
        let digest = entry["digest"].as_str().unwrap_or_default();
        state.manifests.contains_key(&(repo.to_owned(), digest.to_owned()))
    };
    let config = value.get("config").is_none_or(held);
    if !config || !names("layers").iter().all(held) || !names("manifests").iter().all(known) {
        return Reply::error(400, "MANIFEST_BLOB_UNKNOWN");
    }
    let digest = Digest::of(&seen.body).to_string();
    let content = (seen.header("content-type").unwrap_or_default().to_owned(), seen.body.clone());
    state.manifests.insert((repo.to_owned(), digest.clone()), content.clone());
    state.manifests.insert((repo.to_owned(), reference.to_owned()), content);
    let tags = state.tags.entry(repo.to_owned()).or_default();
    if !reference.contains(':') {
        tags.insert(reference.to_owned());
    }
    Reply::new(201, "text/plain", "").with("Docker-Content-Digest", digest)
}
