//! What an honest registry answers: lists in pages, manifests, blobs with ranges, and logins.

use tofufs::digest::Digest;

use super::{Login, Reply, Seen, State, uploads};

pub fn honest(state: &mut State, seen: &Seen) -> Reply {
    if seen.path.starts_with("/token") {
        return token(state, seen);
    }
    if let Some(challenge) = refuse(state, seen) {
        return challenge;
    }
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let Some(rest) = path.strip_prefix("/v2/") else {
        return Reply::new(404, "text/html", "<html>no</html>");
    };
    if rest == "_catalog" {
        let repositories: Vec<_> = state.tags.keys().collect();
        return Reply::new(
            200,
            "application/json",
            serde_json::json!({ "repositories": repositories }).to_string(),
        );
    }
    if let Some(repo) = rest.strip_suffix("/tags/list") {
        return tags(state, repo, query);
    }
    if matches!(&*seen.method, "POST" | "PUT") {
        return uploads::written(state, seen, rest);
    }
    if seen.method == "DELETE" {
        return uploads::removed(state, rest);
    }
    if let Some((repo, subject)) = rest.split_once("/referrers/") {
        return referrers(state, repo, subject);
    }
    if let Some((repo, reference)) = rest.split_once("/manifests/") {
        return match state.manifests.get(&(repo.to_owned(), reference.to_owned())) {
            Some((media_type, bytes)) => Reply::new(200, media_type, bytes.clone())
                .with("Docker-Content-Digest", Digest::of(bytes).to_string()),
            None => Reply::error(404, "MANIFEST_UNKNOWN"),
        };
    }
    match rest
        .split_once("/blobs/")
        .and_then(|(_, digest)| state.blobs.get(digest).map(|bytes| (digest, bytes)))
    {
        Some((digest, bytes)) => blob(seen, digest, bytes),
        None => Reply::error(404, "BLOB_UNKNOWN"),
    }
}

fn tags(state: &State, repo: &str, query: &str) -> Reply {
    let Some(tags) = state.tags.get(repo) else { return Reply::error(404, "NAME_UNKNOWN") };
    let parameter =
        |name: &str| query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
    let asked = parameter("n").and_then(|n| n.parse().ok()).unwrap_or(100);
    let n = asked.min(state.page.unwrap_or(usize::MAX));
    let after = parameter("last").unwrap_or_default();
    let mut rest = tags.iter().filter(|tag| tag.as_str() > after);
    let page: Vec<&String> = rest.by_ref().take(n).collect();
    let body = serde_json::json!({ "name": repo, "tags": page }).to_string();
    let reply = Reply::new(200, "application/json", body);
    match (rest.next(), page.last()) {
        (Some(_), Some(last)) => {
            reply.with("Link", format!("</v2/{repo}/tags/list?n={n}&last={last}>; rel=\"next\""))
        }
        _ => reply,
    }
}

/// The list of what names `subject`, where such lists are made.
fn referrers(state: &State, repo: &str, subject: &str) -> Reply {
    if !state.lists_referrers {
        return Reply::new(404, "text/plain", "404 page not found\n");
    }
    let named = state.manifests.iter().filter(|((of, at), _)| of == repo && at.contains(':'));
    let entries = named.filter_map(|((_, digest), (media_type, bytes))| {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        (value["subject"]["digest"] == subject).then(|| {
            serde_json::json!({"mediaType": media_type, "digest": digest, "size": bytes.len(),
                "artifactType": value["artifactType"], "annotations": value["annotations"]})
        })
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|entry| entry["digest"].to_string());
    let list = serde_json::json!({"schemaVersion": 2, "mediaType": tofufs::oci::INDEX,
        "manifests": entries});
    Reply::new(200, tofufs::oci::INDEX, list.to_string())
}

fn blob(seen: &Seen, digest: &str, bytes: &[u8]) -> Reply {
    let etag = format!("\"{digest}\"");
    let whole = Reply::new(200, "application/octet-stream", bytes).with("ETag", &*etag);
    let Some(range) = seen.header("range").and_then(|r| r.strip_prefix("bytes=")) else {
        return whole;
    };
    if seen.header("if-range").is_some_and(|wanted| wanted != etag) {
        return whole;
    }
    let Some((Ok(first), Ok(last))) =
        range.split_once('-').map(|(a, b)| (a.parse::<usize>(), b.parse::<usize>()))
    else {
        return Reply::error(416, "RANGE");
    };
    let last = last.min(bytes.len().saturating_sub(1));
    if first > last {
        return Reply::error(416, "RANGE");
    }
    Reply::new(206, "application/octet-stream", &bytes[first..=last])
        .with("ETag", etag)
        .with("Content-Range", format!("bytes {first}-{last}/{}", bytes.len()))
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
    )
}

/// The 401 that the request deserves, if any.
fn refuse(state: &State, seen: &Seen) -> Option<Reply> {
    let sent = seen.header("authorization");
    let (sound, challenge) = match state.login.as_ref()? {
        Login::Basic { user, password } => {
            (sent == Some(&basic(user, password)), "Basic realm=\"registry\"".to_owned())
        }
        Login::Bearer { realm, .. } => (
            sent.and_then(|s| s.strip_prefix("Bearer "))
                .is_some_and(|token| state.tokens.contains(token)),
            format!(
                "Bearer realm=\"{realm}\",service=\"hostile\",scope=\"repository:x:pull,push,delete\""
            ),
        ),
    };
    (!sound).then(|| Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge))
}

fn token(state: &mut State, seen: &Seen) -> Reply {
    if let Some(Login::Bearer { user: Some((user, password)), .. }) = &state.login {
        let form = String::from_utf8_lossy(&seen.body);
        let refreshed = form.contains("grant_type=refresh_token")
            && form.contains(&format!("refresh_token={password}"));
        if !refreshed && seen.header("authorization") != Some(&basic(user, password)) {
            return Reply::error(401, "UNAUTHORIZED");
        }
    }
    state.tokens_made += 1;
    let token = format!("token-{}", state.tokens_made);
    state.tokens.insert(token.clone());
    Reply::new(200, "application/json", format!(r#"{{"token":"{token}","expires_in":300}}"#))
}
