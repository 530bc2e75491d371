//! Programs that read files: they see a mount as any other directory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::mount::{Mount, Options};
use crate::support::{layouts, pack, program};
use crate::{module_package, noise, run, sh, tree, unzipped};

/// A mounted store with a module and a provider; the store is there as long as the value.
fn mounted(provider: &[(&str, Vec<u8>)]) -> Option<(tempfile::TempDir, Mount)> {
    let store = tempfile::tempdir().expect("a temporary directory");
    layouts::add(
        store.path(),
        "reg.example",
        "acme/network",
        "1.0.0",
        &pack::module_of(module_package()),
    );
    layouts::add(
        store.path(),
        "reg.example",
        "acme/providers/hello",
        "0.1.0",
        &pack::provider_of(provider),
    );
    let mount = Mount::start(&[format!("oci:{}", store.path().display())], Options::new())?;
    Some((store, mount))
}

#[test]
fn grep_find_and_tar_see_the_tree_of_the_package() {
    let Some((_store, mount)) = mounted(&[]) else { return };
    let module = mount.join("reg.example/acme/network/1.0.0");
    let found = sh("grep", ["-rl".as_ref(), "output \"inner\"".as_ref(), module.as_os_str()]);
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [module.join("modules/inner/main.tf").to_str().unwrap()]
    );
    let found = sh(
        "find",
        [module.as_os_str(), "-type".as_ref(), "f".as_ref(), "-perm".as_ref(), "/111".as_ref()],
    );
    assert_eq!(found.trim_end(), module.join("scripts/run.sh").to_str().unwrap());
    let Some(wanted) = unzipped(&module_package()) else { return };
    let to = tempfile::tempdir().unwrap();
    let tar = format!("tar -C {} -cf - . | tar -C {} -xf -", module.display(), to.path().display());
    run(Command::new("sh").args(["-c", &tar]));
    assert_eq!(tree(to.path()), wanted);
}

#[test]
fn a_copy_by_cp_is_the_tree_of_the_package() {
    let Some((_store, mount)) = mounted(&[]) else { return };
    let Some(wanted) = unzipped(&module_package()) else { return };
    let dir = tempfile::tempdir().unwrap();
    for arguments in [vec!["-r"], vec!["-a"], vec!["-r", "--sparse=always"]] {
        let to = dir.path().join(arguments.join(""));
        let from = mount.join("reg.example/acme/network/1.0.0");
        run(Command::new("cp").args(&arguments).arg(from).arg(&to));
        assert_eq!(tree(&to), wanted, "cp {arguments:?}");
    }
}

#[test]
fn a_mapped_file_is_the_file() {
    let Some(python) = program("python3") else { return };
    let content = noise(7, (2 << 20) + 5);
    let package = pack::zip(&[("terraform-provider-hello_v0.1.0!", &content)]);
    let Some((_store, mount)) = mounted(&[("linux_amd64", package.clone())]) else { return };
    let release = mount.join("reg.example/acme/providers/hello/0.1.0");
    let script = "import hashlib, mmap, sys\n\
                  with open(sys.argv[1], 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:\n    \
                  print(hashlib.sha256(m[-7:]).hexdigest(), hashlib.sha256(m).hexdigest())\n";
    let unpacked = (release.join("linux_amd64/terraform-provider-hello_v0.1.0"), &content);
    for (file, bytes) in [unpacked, (release.join("linux_amd64.zip"), &package)] {
        let printed = run(Command::new(&python).args(["-c", script]).arg(&file));
        let hash = |bytes: &[u8]| tofufs::digest::Digest::of(bytes).hex().to_string();
        assert_eq!(
            printed.trim_end(),
            format!("{} {}", hash(&bytes[bytes.len() - 7..]), hash(bytes))
        );
    }
}

#[test]
fn a_program_runs_from_a_provider_package() {
    let shell: PathBuf = fs::canonicalize("/bin/sh").expect("a shell");
    let package = pack::provider_zip("hello", "0.1.0", &fs::read(&shell).expect("a shell"));
    let Some((_store, mount)) = mounted(&[("linux_amd64", package)]) else { return };
    let file = mount
        .join("reg.example/acme/providers/hello/0.1.0/linux_amd64/terraform-provider-hello_v0.1.0");
    assert_eq!(run(Command::new(&file).args(["-c", "echo it runs"])), "it runs\n");
    let script = mount.join("reg.example/acme/network/1.0.0/scripts/run.sh");
    assert_eq!(run(&mut Command::new(script)), "ran\n");
    let text = Command::new(mount.join("reg.example/acme/network/1.0.0/main.tf")).output();
    assert_eq!(text.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
}
