use tofufs::registry::{Removed, Uploaded};
use tofufs::stage::attach::{self, Attachment};

use super::ground::{MODULE, PROVIDER, Releases, put, writers};
use crate::support::pack;
use crate::*;

#[tokio::test]
async fn what_is_written_is_there_for_every_reader_at_once() {
    let all = Releases::new();
    for to in writers() {
        eprintln!("{}", to.name);
        let before = to.reader.tags(&name(MODULE)).await.unwrap_err();
        assert_eq!(before.failure, Failure::Absent, "{before}");
        for (repo, at, release) in [(MODULE, "1.0.0", &all.module), (PROVIDER, "1", &all.provider)]
        {
            let sent = put(&*to.upload, repo, at, release).await;
            assert!(sent.contains(&Uploaded::Sent), "{sent:?}");
            let (repo, root) = (name(repo), release.root());
            let stands = to.upload.present(&repo, &by_tag(at)).await.unwrap();
            assert_eq!(stands, Some(root.digest()));
            let back = to.upload.read_back(&repo, &by_tag(at)).await.unwrap();
            assert_eq!(*back.bytes, *root.bytes);
            assert_eq!(to.upload.tags_now(&repo, None).await.unwrap(), [tag(at)]);
            assert_eq!(to.reader.tags(&repo).await.unwrap(), [tag(at)]);
            let read = to.reader.resolve(&repo, &tag(at)).await.unwrap();
            assert_eq!(read, Some(root.digest()));
            for blob in &release.blobs {
                let mut sink = MemorySink::default();
                to.reader.blob(&repo, &descriptor(blob), &mut sink).await.unwrap();
                assert!(sink.bytes == *blob);
            }
        }
    }
}

#[tokio::test]
async fn what_is_there_is_not_sent_again_and_a_tag_that_moves_takes_nothing_away() {
    let all = Releases::new();
    for to in writers() {
        eprintln!("{}", to.name);
        put(&*to.upload, MODULE, "1.0.0", &all.module).await;
        let sent = put(&*to.upload, MODULE, "1.0.0", &all.module).await;
        assert!(sent.iter().all(|sent| *sent == Uploaded::Present), "{sent:?}");
        put(&*to.upload, MODULE, "1.0.0", &all.provider).await;
        let repo = name(MODULE);
        let stands = to.reader.resolve(&repo, &tag("1.0.0")).await.unwrap();
        assert_eq!(stands, Some(all.provider.digest()));
        let before = Selector::Digest(all.module.digest());
        let raw = to.reader.manifest(&repo, &before).await.unwrap();
        assert_eq!(*raw.bytes, *all.module.root().bytes);
    }
}

#[tokio::test]
async fn bytes_that_are_not_what_was_announced_are_not_kept() {
    for to in writers() {
        eprintln!("{}", to.name);
        let (repo, said) = (name(MODULE), descriptor(b"what was announced"));
        let other = Bytes::from_static(b"what has come here");
        let error = to.upload.put_blob(&repo, &said, &other).await.unwrap_err();
        assert_eq!(error.failure, Failure::Integrity, "{error}");
        let mut sink = MemorySink::default();
        assert!(to.reader.blob(&repo, &said, &mut sink).await.is_err() && sink.bytes.is_empty());
    }
}

#[tokio::test]
async fn what_is_removed_is_gone_with_its_tags_alone() {
    let all = Releases::new();
    for to in writers() {
        eprintln!("{}", to.name);
        put(&*to.upload, MODULE, "1.0.0", &all.module).await;
        put(&*to.upload, MODULE, "2.0.0", &all.provider).await;
        let repo = name(MODULE);
        match to.upload.remove(&repo, &all.module.digest()).await.unwrap() {
            Removed::Yes => {
                let gone = to.reader.resolve(&repo, &tag("1.0.0")).await.unwrap_err();
                assert_eq!(gone.failure, Failure::Absent, "{gone}");
                let again = to.upload.remove(&repo, &all.module.digest()).await.unwrap();
                assert_ne!(again, Removed::Refused);
            }
            Removed::Refused => {
                assert_eq!(to.upload.tags_now(&repo, Some("1")).await.unwrap().len(), 2);
            }
            Removed::WasAbsent => panic!("it was there"),
        }
        let other = to.reader.resolve(&repo, &tag("2.0.0")).await.unwrap();
        assert_eq!(other, Some(all.provider.digest()));
    }
}

/// What speaks about a manifest is listed, once, whoever keeps the list; also where two write at
/// once.
#[tokio::test]
async fn what_speaks_about_a_manifest_is_listed_once_and_lost_by_nobody() {
    for writer in writers() {
        let release = pack::module(&[("main.tf", b"# 1\n")]);
        put(writer.upload.as_ref(), MODULE, "1.0.0", &release).await;
        let (upload, repo) = (
            writer.upload.as_ref(),
            tofufs::name::Repo { host: "reg.example".parse().unwrap(), name: name(MODULE) },
        );
        let subject = attach::subject(upload, &repo, &by_tag("1.0.0")).await.unwrap();
        let say = |text: &'static str| {
            let attachment = Attachment {
                kind: "application/vnd.acme.note".to_owned(),
                title: Some("note.txt".to_owned()),
                bytes: Bytes::from_static(text.as_bytes()),
                annotations: Default::default(),
            };
            let (repo, subject) = (&repo, &subject);
            async move {
                let patience = Duration::from_secs(30);
                attach::attach(upload, repo, subject, &attachment, patience, &|_| {}).await.unwrap()
            }
        };
        let (one, other) = tokio::join!(say("one"), say("other"));
        assert_eq!(say("one").await, one, "{}", writer.name);
        let said = writer.reader.referrers(&name(MODULE), &release.digest()).await;
        assert_eq!(said.unheard, None, "{}", writer.name);
        let mut listed: Vec<Digest> = said.entries.iter().map(|entry| entry.digest).collect();
        let mut wanted = vec![one, other];
        listed.sort();
        wanted.sort();
        assert_eq!(listed, wanted, "{}", writer.name);
        let tags = writer.reader.tags(&name(MODULE)).await.unwrap();
        assert_eq!(tags, [tag("1.0.0")], "{}", writer.name);
    }
}
