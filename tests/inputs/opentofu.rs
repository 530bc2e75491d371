//! OpenTofu's own extractor, as a process that is given one archive after the other.

use std::fs;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::support::{program, skip};
use crate::tree::Tree;

/// The files of go-getter in which its zip extractor is written.
const FILES: &[&str] = &["copy_dir.go", "decompress.go", "decompress_zip.go", "get_file_copy.go"];

static BUILDING: Mutex<()> = Mutex::new(());

/// The extractor. It unpacks as a user without privileges.
pub struct OpenTofu {
    process: Child,
    _dirs: [tempfile::TempDir; 2],
}

impl OpenTofu {
    /// Builds and starts it, with its standard input and output. `None`, with the reason printed,
    /// where there is no Go or no go-getter.
    pub fn start() -> Option<(OpenTofu, BufWriter<ChildStdin>, BufReader<ChildStdout>)> {
        let go = program("go")?;
        // One after the other: the second build finds what the first has compiled.
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inputs/unzip");
        let build = dir.path().join("build");
        fs::create_dir_all(build.join("getter")).expect("a writable directory");
        for file in ["go.mod", "go.sum", "main.go", "getter/rest.go"] {
            fs::copy(source.join(file), build.join(file)).expect("a source of ours");
        }
        run(&go, &build, &["mod", "download", "github.com/hashicorp/go-getter"])?;
        let module =
            run(&go, &build, &["list", "-m", "-f", "{{.Dir}}", "github.com/hashicorp/go-getter"])?;
        for file in FILES {
            let bytes =
                fs::read(Path::new(module.trim()).join(file)).expect("a file of the module");
            fs::write(build.join("getter").join(file), bytes).expect("a writable directory");
        }
        run(&go, &build, &["build", "-o", "unzip", "."])?;
        // In memory where that is possible: each case is a few files.
        let memory = Path::new("/dev/shm");
        let place =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let place = place.expect("a temporary directory");
        let mut process = Command::new(build.join("unzip"))
            .arg(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("what was built runs");
        let (input, output) =
            (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        Some((
            OpenTofu { process, _dirs: [dir, place] },
            BufWriter::new(input),
            BufReader::new(output),
        ))
    }
}

impl Drop for OpenTofu {
    fn drop(&mut self) {
        // It ends by itself with its input, unless a test failed meanwhile.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `go`; its output, or `None` with the reason printed.
fn run(go: &Path, dir: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(go);
    command.args(arguments).current_dir(dir).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
    let output = command.env("GOFLAGS", "-mod=mod").output().expect("go runs");
    if !output.status.success() {
        skip(&format!("go {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Gives it an archive.
pub fn send(input: &mut impl Write, zip: &[u8]) -> io::Result<()> {
    input.write_all(&(zip.len() as u32).to_le_bytes())?;
    input.write_all(zip)
}

/// The tree that it made of the next archive, or its error.
pub fn receive(output: &mut impl Read) -> io::Result<Result<Tree, String>> {
    let mut length = [0; 4];
    output.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_le_bytes(length) as usize];
    output.read_exact(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(match answer.strip_prefix("error: ") {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer.lines().map(crate::tree::parse).collect()),
    })
}
