//! Archives of the tools that people use are accepted, with the tree that was put in.

use std::io::{Cursor, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;
use crate::skip::skip;

/// Runs a tool in `dir`; its standard output, or `None` with a printed reason where it is not
/// there.
fn run(dir: &Path, tool: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let output =
        Command::new(tool).args(arguments).current_dir(dir).stderr(Stdio::inherit()).output();
    match output {
        Ok(output) => {
            assert!(output.status.success(), "{tool} {arguments:?} ends with {}", output.status);
            Some(output.stdout)
        }
        Err(error) => {
            skip(&format!("{tool}: {error}"));
            None
        }
    }
}

/// A directory with a module in `m`, and what an archive of it holds.
fn module() -> (tempfile::TempDir, Contents) {
    let dir = tempfile::tempdir().unwrap();
    let text = "variable \"name\" { type = string }\n".repeat(200);
    let mut expected = Contents::new();
    std::fs::create_dir_all(dir.path().join("m/modules/empty")).unwrap();
    for (path, content, mode) in [
        ("main.tf", text.as_str(), 0o644),
        ("empty.tf", "", 0o644),
        ("modules/\u{e9}.tf", "# umlaut", 0o600),
        ("modules/run.sh", "#!/bin/sh\n", 0o755),
    ] {
        let file = dir.path().join("m").join(path);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        expected.insert(path.into(), (content.into(), mode & 0o100 != 0));
    }
    for path in ["modules/", "modules/empty/"] {
        expected.insert(path.into(), (Vec::new(), true));
    }
    (dir, expected)
}

#[test]
fn archives_of_python_are_read() {
    const SCRIPT: &str = r#"
import os, sys, zipfile
class Pipe:
    def write(self, data): return sys.stdout.buffer.write(data)
    def flush(self): sys.stdout.buffer.flush()
method = zipfile.ZIP_DEFLATED if "deflate" in sys.argv else zipfile.ZIP_STORED
out = Pipe() if "stream" in sys.argv else "out.zip"
with zipfile.ZipFile(out, "w", method) as z:
    for top, dirs, files in os.walk("m"):
        for name in dirs + files:
            path = os.path.join(top, name)
            if "zip64" in sys.argv and name in files:
                info = zipfile.ZipInfo.from_file(path, path[2:])
                info.compress_type = method
                with z.open(info, "w", force_zip64=True) as f: f.write(open(path, "rb").read())
            else:
                z.write(path, path[2:])
"#;
    let (dir, expected) = module();
    for mode in [
        "file stored",
        "file deflate",
        "stream stored",
        "stream deflate",
        "file zip64",
        "stream zip64 deflate",
    ] {
        let arguments: Vec<&str> = ["-c", SCRIPT].into_iter().chain(mode.split(' ')).collect();
        let Some(mut zip) = run(dir.path(), "python3", &arguments) else { return };
        if mode.starts_with("file") {
            zip = std::fs::read(dir.path().join("out.zip")).unwrap();
        }
        assert_eq!(
            contents(&zip).unwrap_or_else(|error| panic!("{mode}: {error}")),
            expected,
            "{mode}"
        );
    }
}

#[test]
fn archives_of_info_zip_are_read() {
    let (dir, expected) = module();
    let top = dir.path().join("m");
    for arguments in [
        ["-qr", "-9", "../out.zip", "."],
        ["-qr", "-0", "../out.zip", "."],
        ["-qrX", "-6", "../out.zip", "."],
        ["-qr", "-fz", "../out.zip", "."],
        ["-qr", "-6", "-", "."],
    ] {
        let Some(mut zip) = run(&top, "zip", &arguments) else { return };
        if arguments[2] != "-" {
            zip = std::fs::read(dir.path().join("out.zip")).unwrap();
            std::fs::remove_file(dir.path().join("out.zip")).unwrap();
        }
        assert_eq!(
            contents(&zip).unwrap_or_else(|error| panic!("{arguments:?}: {error}")),
            expected
        );
    }
}

#[test]
fn archives_of_git_are_read() {
    let (dir, mut expected) = module();
    expected.remove(&b"modules/empty/"[..]);
    let user =
        ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
    for arguments in [&["init", "-q"][..], &["add", "m"], &["commit", "-q", "-m", "m"]] {
        if run(dir.path(), "git", &[&user, arguments].concat()).is_none() {
            return;
        }
    }
    for level in ["-0", "-9"] {
        let zip =
            run(&dir.path().join("m"), "git", &["archive", "--format=zip", level, "HEAD"]).unwrap();
        assert_eq!(contents(&zip).unwrap(), expected);
    }
}

/// Writes a tree by the `zip` crate.
fn write<W: Write + Seek>(mut zip: ZipWriter<W>, tree: &Contents, options: SimpleFileOptions) -> W {
    for (path, (content, executable)) in tree {
        let path = std::str::from_utf8(path).unwrap();
        if path.ends_with('/') {
            zip.add_directory(path, options).unwrap();
        } else {
            zip.start_file(path, options.unix_permissions(if *executable { 0o755 } else { 0o644 }))
                .unwrap();
            zip.write_all(content).unwrap();
        }
    }
    zip.finish().unwrap()
}

#[test]
fn archives_of_the_zip_crate_are_read() {
    let (_dir, expected) = module();
    let plain = SimpleFileOptions::default();
    for options in
        [plain, plain.compression_method(CompressionMethod::Stored), plain.large_file(true)]
    {
        let seekable =
            write(ZipWriter::new(Cursor::new(Vec::new())), &expected, options).into_inner();
        assert_eq!(contents(&seekable).unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        files in proptest::collection::btree_map("[a-zé .]{0,4}[a-z](/[a-zä]{1,3}){0,3}", (any::<Vec<u8>>(), any::<bool>()), 1..20),
        stored in any::<bool>(),
    ) {
        let mut expected = Contents::new();
        for (path, content) in &files {
            // Every path gets its own top, so that no file stands where another needs a directory.
            let path = format!("{}-{path}", expected.len());
            for (at, _) in path.match_indices('/') {
                expected.insert(path[..=at].into(), (Vec::new(), true));
            }
            expected.insert(path.into(), content.clone());
        }
        let method = if stored { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        let options = SimpleFileOptions::default().compression_method(method);
        let zip = write(ZipWriter::new(Cursor::new(Vec::new())), &expected, options).into_inner();
        prop_assert_eq!(contents(&zip).unwrap(), expected);
    }
}

#[test]
fn archives_of_go_are_read() {
    const PROGRAM: &str = r#"package main
import ("archive/zip"; "os")
func main() {
	z := zip.NewWriter(os.Stdout)
	if err := z.AddFS(os.DirFS("m")); err != nil { panic(err) }
	if err := z.Close(); err != nil { panic(err) }
}"#;
    let (dir, expected) = module();
    std::fs::write(dir.path().join("pack.go"), PROGRAM).unwrap();
    let Some(zip) = run(dir.path(), "go", &["run", "pack.go"]) else { return };
    assert_eq!(contents(&zip).unwrap(), expected);
}
