//! From a staged tree to a release, and what a repeated, failed, interrupted or shared commit does.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::archive::{Limits, index};
use crate::artifact::{MODULE, Release};
use crate::digest::Digest;
use crate::failure::Failure;
use crate::memory::failure;

#[tokio::test]
async fn a_staged_tree_becomes_a_module_and_goes() {
    let bed = Bed::new();
    bed.module("acme/network/1.3.0");
    bed.write(&format!("{HOST}/acme/network/1.3.0/.git/config"), "x");
    assert_eq!(bed.look().state, StageState::Open);
    let done = bed.committed(&format!("{HOST}/acme/network/1.3.0")).await;
    assert_eq!(
        (&*done.reference.to_string(), done.tag.as_str()),
        ("registry.example/acme/network:1.3.0", "1.3.0")
    );
    assert_eq!(bed.registry.tag("acme/network", "1.3.0").unwrap(), done.digest);
    let manifest = bed.registry.document("acme/network", done.digest);
    assert_eq!(manifest.artifact_type.as_deref(), Some(MODULE));
    let Release::Module(layer) = Release::read(&manifest).unwrap() else { panic!("a module") };
    let zip = bed.registry.stored("acme/network", layer.digest);
    let members = index(&zip, &Limits::default()).unwrap();
    assert_eq!(members.file_count(), 2);
    assert_eq!((done.uploaded_bytes, done.skipped_blobs), (zip.len() as u64 + 2, 0));
    assert!(
        bed.stage.staged().unwrap().is_empty()
            && !bed.path(&format!("{HOST}/acme/network/1.3.0")).exists()
    );
    assert!(bed.staged_bytes().is_empty());
    assert_eq!(fs::read_dir(bed.dir.path().join(WORK)).unwrap().count(), 0);
    assert_eq!(fs::read_dir(bed.dir.path().join(REMOVED)).unwrap().count(), 0);
}

/// A change of this digest gives every module another one.
#[tokio::test]
async fn the_same_tree_has_the_same_digest_on_every_day() {
    let bed = Bed::new();
    bed.module("acme/network/1.3.0");
    let first = bed.committed(&format!("{HOST}/acme/network/1.3.0")).await;
    assert_eq!(
        first.digest.to_string(),
        "sha256:d5bd033898016aaa4e6a2770f80312e3d3f13ee5c3ba5dcd3bfd00573c58f678"
    );
    bed.registry.log();
    // In another order, with other times and modes.
    bed.write(&format!("{HOST}/acme/network:1.3.0/modules/a/run.sh"), "#!/bin/sh\n");
    bed.write(&format!("{HOST}/acme/network:1.3.0/main.tf"), "resource \"x\" \"y\" {}\n");
    let path = bed.path(&format!("{HOST}/acme/network:1.3.0/main.tf"));
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400))
        .unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    drop(file);
    let again = bed.committed(&format!("{HOST}/acme/network:1.3.0")).await;
    assert_eq!((&again.digest, again.uploaded_bytes), (&first.digest, 0));
    assert_eq!(bed.registry.log(), ["present"]);
}

#[tokio::test]
async fn a_commit_that_is_done_says_so_again_without_a_request() {
    let mut bed = Bed::new();
    bed.module("acme/network/1.3.0");
    let path = format!("{HOST}/acme/network/1.3.0");
    let first = bed.committed(&path).await;
    bed.registry.log();
    bed.again();
    for path in [path.as_str(), "registry.example/acme/network:1.3.0"] {
        let again = bed.committed(path).await;
        assert_eq!((again.reference, again.digest), (first.reference.clone(), first.digest));
    }
    assert!(bed.registry.log().is_empty());
    assert_eq!(bed.refused(&format!("{HOST}/acme/network/9")).await.failure, Failure::Absent);
}

/// hostile input R61
#[tokio::test]
async fn another_digest_under_the_tag_is_kept_unless_told_otherwise() {
    let bed = Bed::new();
    bed.module("acme/network/1");
    let path = format!("{HOST}/acme/network/1");
    let first = bed.committed(&path).await;
    bed.module("acme/network/1");
    bed.write(&format!("{path}/more.tf"), "# more\n");
    bed.registry.log();
    let error = bed.refused(&path).await;
    assert_eq!(error.failure, Failure::Exists);
    let text = error.to_string();
    assert!(
        text.contains(&first.digest.to_string()) && text.matches("sha256:").count() == 2,
        "{text}"
    );
    assert_eq!(bed.registry.log(), ["present"]);
    assert_eq!((bed.look().state, bed.look().error), (StageState::Failed, Some(text)));
    let request = CommitRequest { allow_overwrite: true, ..CommitRequest::default() };
    let second = bed.stage.commit(&staged(&path), request).await.unwrap();
    assert_ne!(second[0].digest, first.digest);
    assert_eq!(bed.registry.tag("acme/network", "1").unwrap(), second[0].digest);
}

/// Each call of the registry fails once, in a process of its own (O14, O15 without the kernel).
#[tokio::test(start_paused = true)]
async fn a_commit_is_taken_up_wherever_it_was_cut_off() {
    let whole = Bed::new();
    whole.module("acme/network/1");
    let path = format!("{HOST}/acme/network/1");
    let digest = whole.committed(&path).await.digest;
    let calls = whole.registry.log();
    // A claim that stays behind is no failure.
    let (last, needed) = calls.split_last().unwrap();
    assert!(last == "remove" && needed.len() >= 8);
    for cut in 0..needed.len() {
        let mut bed = Bed::new();
        bed.module("acme/network/1");
        let count = AtomicUsize::new(0);
        bed.registry.before(move |_, _| {
            if count.fetch_add(1, Ordering::SeqCst) == cut {
                Err(failure(Failure::TimedOut))
            } else {
                Ok(())
            }
        });
        let error = bed.refused(&path).await;
        assert_eq!(error.failure, Failure::TimedOut);
        assert_eq!(bed.look().state, StageState::Failed);
        bed.registry.calm();
        let sent = bed.registry.log().iter().filter(|call| *call == "blob sent").count();
        if cut % 2 == 0 {
            bed.again();
            assert_eq!(bed.look().state, StageState::Failed);
        }
        assert_eq!(bed.committed(&path).await.digest, digest, "cut at {cut}");
        let more = bed.registry.log().iter().filter(|call| *call == "blob sent").count();
        assert_eq!(sent + more, 2, "each blob is sent once; cut at {cut}");
    }
}

#[tokio::test]
async fn who_asks_for_a_commit_that_is_under_way_joins_it() {
    let bed = Bed::new();
    bed.module("acme/network/1");
    let path = format!("{HOST}/acme/network/1");
    let (a, b) = tokio::join!(bed.committed(&path), bed.committed(&path));
    assert_eq!(a, b);
    assert_eq!(bed.registry.log().iter().filter(|call| *call == "tag").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_goes_on_when_who_asked_is_gone_and_keeps_the_stage_sealed() {
    let bed = Bed::new();
    bed.module("acme/network/1");
    let path = format!("{HOST}/acme/network/1");
    let (arrived, wait) = std::sync::mpsc::channel();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    bed.registry.before(move |_, call| {
        if call == "tag" {
            arrived.send(()).unwrap();
            gate.recv().unwrap();
        }
        Ok(())
    });
    let stage = Arc::clone(&bed.stage);
    let asked = path.clone();
    let asking =
        tokio::spawn(async move { stage.commit(&staged(&asked), CommitRequest::default()).await });
    tokio::task::spawn_blocking(move || wait.recv().unwrap()).await.unwrap();
    asking.abort();
    assert!(asking.await.is_err());
    assert!(bed.stage.is_sealed(&staged(&format!("{path}/main.tf"))));
    assert!(!bed.stage.is_sealed(&staged("registry.example/acme/network/10")));
    assert_eq!(bed.look().state, StageState::Uploading);
    go.send(()).unwrap();
    bed.committed(&path).await;
    assert!(!bed.stage.is_sealed(&staged(&path)));
}

struct OneWriter(RelPath);

impl StagedFiles for OneWriter {
    fn open_writer(&self, _: &RelPath) -> Option<RelPath> {
        Some(self.0.clone())
    }

    fn taken(&self, _: &RelPath) {}
}

#[tokio::test]
async fn a_file_that_is_open_for_writing_holds_the_commit_up() {
    let bed = Bed::new();
    bed.module("acme/network/1");
    let path = format!("{HOST}/acme/network/1");
    let files = Arc::new(OneWriter(staged(&format!("{path}/main.tf"))));
    let request = CommitRequest { files: Some(files), ..CommitRequest::default() };
    let error = bed.stage.commit(&staged(&path), request).await.unwrap_err();
    assert_eq!(error.failure, Failure::Busy);
    assert!(error.to_string().contains("main.tf is open for writing"), "{error}");
    assert!(bed.registry.log().is_empty() && !bed.stage.is_sealed(&staged(&path)));
}

#[tokio::test]
async fn what_is_written_meanwhile_stays() {
    let bed = Bed::new();
    bed.module("acme/network/1");
    let path = format!("{HOST}/acme/network/1");
    let late = bed.path(&format!("{path}/late.tf"));
    let written = late.clone();
    bed.registry.before(move |_, call| {
        if call == "tag" {
            fs::write(&written, "late").unwrap();
        }
        Ok(())
    });
    bed.committed(&path).await;
    assert_eq!(fs::read(&late).unwrap(), b"late");
    assert!(bed.path(&format!("{path}/main.tf")).exists());
}

#[tokio::test]
async fn everything_below_a_path_is_committed() {
    let bed = Bed::new();
    bed.module("acme/a/1");
    bed.module("acme/b:2");
    bed.module("other/c/3");
    let done = bed.commit(&format!("{HOST}/acme")).await.unwrap();
    let references: Vec<_> = done.iter().map(|c| c.reference.to_string()).collect();
    assert_eq!(references, ["registry.example/acme/a:1", "registry.example/acme/b:2"]);
    assert_eq!(bed.look().path, staged("registry.example/other/c/3"));
}

/// R60: what the registry says afterwards is not what it was given.
#[tokio::test]
async fn a_registry_that_lies_is_found_out() {
    let path = format!("{HOST}/acme/network/1");
    let lie = |at: &'static str, lie: fn(&MemoryRegistry)| {
        let bed = Bed::new();
        bed.module("acme/network/1");
        let mut done = false;
        let mut tagged = false;
        bed.registry.before(move |registry, call| {
            if call == at && !done && (at != "present" || tagged) {
                done = true;
                lie(registry);
            }
            tagged |= call == "tag";
            Ok(())
        });
        bed
    };
    let bed = lie("read", |registry| {
        registry.each(|repo| {
            repo.manifests.values_mut().for_each(|m| m.0 = [&m.0[..], b" "].concat().into());
        })
    });
    let error = bed.refused(&path).await;
    assert_eq!(error.failure, Failure::Integrity);
    assert!(
        bed.registry.tag("acme/network", "1").is_none()
            && error.to_string().matches("sha256:").count() == 2,
        "{error}"
    );
    let bed = lie("present", |registry| registry.each(|repo| repo.tags.clear()));
    assert_eq!(bed.refused(&path).await.failure, Failure::Integrity);
    let bed = lie("present", |registry| {
        registry.each(|repo| {
            repo.tags.values_mut().for_each(|d| *d = crate::digest::Digest::of(b"other"));
        });
    });
    let error = bed.refused(&path).await;
    assert_eq!(error.failure, Failure::Exists);
    assert!(error.to_string().contains("another writer"), "{error}");
}

#[tokio::test]
async fn the_registrys_refusal_is_passed_on() {
    for (told, wanted) in [
        (Failure::Denied, Failure::Denied),
        (Failure::Unreachable, Failure::Unreachable),
        (Failure::Integrity, Failure::Integrity),
    ] {
        let bed = Bed::new();
        bed.module("acme/network/1");
        bed.registry
            .before(move |_, call| if call == "blob" { Err(failure(told)) } else { Ok(()) });
        assert_eq!(bed.refused(HOST).await.failure, wanted);
    }
}

#[tokio::test]
async fn a_failure_is_forgotten_with_what_failed() {
    let mut bed = Bed::new();
    bed.module("acme/network/1");
    bed.registry.before(
        |_, call| {
            if call == "blob" { Err(failure(Failure::Denied)) } else { Ok(()) }
        },
    );
    bed.refused(HOST).await;
    assert_eq!(fs::read_dir(bed.dir.path().join(JOURNAL)).unwrap().count(), 1);
    fs::remove_dir_all(bed.path(&format!("{HOST}/acme/network"))).unwrap();
    bed.again();
    assert_eq!(fs::read_dir(bed.dir.path().join(JOURNAL)).unwrap().count(), 0);
    bed.registry.calm();
    bed.module("acme/network/1");
    assert_eq!(bed.look().state, StageState::Open);
}

/// Scripts read it, and journals of earlier versions have no counts.
#[test]
fn what_was_pushed_is_written_in_texts() {
    let digest = Digest::of(b"x");
    let known = format!("{{\"reference\":\"a.b/c:1\",\"digest\":\"{digest}\",\"tag\":\"1\"");
    let pushed: Pushed = serde_json::from_str(&format!("{known}}}")).unwrap();
    assert_eq!((pushed.reference.to_string(), pushed.digest), ("a.b/c:1".to_owned(), digest));
    let written = serde_json::to_string(&pushed).unwrap();
    assert_eq!(written, format!("{known},\"uploaded_bytes\":0,\"skipped_blobs\":0}}"));
}
