//! `plugin-cache/`: what is there is linked and never written, what is not is kept locally.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clients::{Client, configuration_for, one_line};
use crate::support::docker_registry::DockerRegistry;
use crate::support::mount::{Mount, Options};
use crate::support::{pack, program, unwritable};
use crate::tiny::{self, OTHER};
use crate::{ORIGIN, declared, here, mapped, names, registry};

/// A plugin cache with one provider from the registry, `acme/one`.
fn cache(options: impl FnOnce(Options) -> Options) -> Option<(DockerRegistry, Mount, PathBuf)> {
    let registry = registry()?;
    registry.push("mirror/acme/one").artifact("1.0.0", &pack::provider("one", "1.0.0", &[&here()]));
    let mount = Mount::start(&[registry.host()], options(mapped(&registry)))?;
    let version = mount.join("plugin-cache").join(ORIGIN).join("acme/one/1.0.0");
    Some((registry, mount, version))
}

/// Whether somebody else holds the lock on the file, as another process finds it.
fn is_locked(file: &Path) -> bool {
    const PROBE: &str =
        "import fcntl, sys\nf = open(sys.argv[1], 'r+')\nfcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n";
    !Command::new("python3").args(["-c", PROBE]).arg(file).output().expect("python runs").status.success()
}

fn lock_files_work(read_only: bool, passthrough: bool) {
    if program("python3").is_none() {
        return;
    }
    let flags = [(read_only, "--read-only"), (!passthrough, "--no-passthrough")];
    let flags = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag);
    let Some((_registry, mount, version)) = cache(|options| options.args(flags)) else { return };
    // So that the kernel knows how files are opened here.
    assert!(version.join(here()).join("README.md").metadata().is_ok());
    fs::read(version.join(here()).join("README.md")).unwrap();
    let lock = version.join(format!("{}.lock", here()));
    for round in ["made", "there"] {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock)
            .unwrap_or_else(|e| panic!("{round}: {e}"));
        assert!(!is_locked(&lock), "{round}");
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(is_locked(&lock), "{round}");
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
        assert!(!is_locked(&lock), "{round}");
        assert_eq!((&file).write(b"x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(fs::read(&lock).unwrap(), b"");
    }
    assert_eq!(names(&version), [here(), format!("{}.lock", here())]);
    fs::remove_file(&lock).unwrap();
    assert_eq!(names(&version), [here()]);
    // Beside packages alone, and nothing but locks where nothing may be written.
    for other in ["plugin-cache/x.lock".into(), version.parent().unwrap().join("x.lock"), version.join("x.json")] {
        assert!(fs::write(mount.join(&other), "").is_err(), "{}", other.display());
    }
    let made = fs::create_dir(version.join(OTHER));
    assert_eq!(made.is_err(), read_only);
}

#[test]
fn lock_files_can_be_made_and_locked() {
    lock_files_work(false, true);
    lock_files_work(false, false);
}

#[test]
fn lock_files_can_be_made_and_locked_on_a_read_only_mount() {
    lock_files_work(true, true);
    lock_files_work(true, false);
}

#[test]
fn what_comes_from_a_registry_is_not_written() {
    let Some((_registry, mount, version)) = cache(|options| options) else { return };
    let package = version.join(here());
    let program = package.join("terraform-provider-one_v1.0.0");
    let before = fs::read(&program).unwrap();
    let refused = |outcome: std::io::Result<()>| outcome.unwrap_err().kind();
    let unwritable = std::io::Error::from(unwritable()).kind();
    assert_eq!(refused(fs::write(&program, "")), unwritable);
    assert_eq!(refused(fs::OpenOptions::new().append(true).open(&program).map(drop)), unwritable);
    assert_eq!(
        refused(fs::set_permissions(&program, fs::Permissions::from_mode(0o700))),
        ErrorKind::ReadOnlyFilesystem
    );
    assert_eq!(refused(fs::write(package.join("new"), "")), unwritable);
    assert_eq!(refused(fs::remove_file(&program)), unwritable);
    assert_eq!(refused(fs::remove_file(&package)), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(refused(fs::rename(&package, version.join(OTHER))), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(refused(fs::remove_dir(&version)), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(refused(fs::create_dir(&package)), ErrorKind::AlreadyExists);
    assert_eq!(refused(symlink("/x", &package)), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&program).unwrap(), before);
    assert_eq!(names(&version), [here()]);
    assert_eq!(
        fs::read_link(&package).unwrap(),
        fs::read_link(mount.join("plugins").join(ORIGIN).join("acme/one/1.0.0").join(here())).unwrap()
    );
}

#[test]
fn what_clients_write_is_kept_beside_it() {
    let Some((_registry, mut mount, version)) = cache(|options| options) else { return };
    let write = |dir: PathBuf| {
        fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let file = dir.join("terraform-provider-x");
        fs::write(&file, "a program").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    };
    let top = mount.join("plugin-cache");
    let files = [
        write(version.join(OTHER)),
        write(top.join(ORIGIN).join("acme/one/2.0.0").join(here())),
        write(top.join("elsewhere.example/other/two/1.0.0+b1").join(here())),
    ];
    symlink("/somewhere", top.join("elsewhere.example/other/two/1.0.0+b1").join(OTHER)).unwrap();
    let look = || {
        for file in &files {
            assert_eq!(fs::read(file).unwrap(), b"a program");
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o755);
        }
        let mut platforms = [here(), OTHER.to_owned()];
        platforms.sort();
        assert_eq!(names(&version), platforms);
        assert_eq!(names(version.parent().unwrap()), ["1.0.0", "2.0.0"]);
        assert_eq!(names(&top), ["elsewhere.example", ORIGIN]);
        let two = top.join("elsewhere.example/other/two/1.0.0+b1");
        assert_eq!(fs::read_link(two.join(OTHER)).unwrap(), Path::new("/somewhere"));
    };
    look();
    // The view itself does not show what was only put beside it.
    assert_eq!(names(&mount.join("plugins").join(ORIGIN).join("acme/one")), ["1.0.0"]);
    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    look();
    fs::remove_dir_all(top.join("elsewhere.example")).unwrap();
    fs::remove_dir_all(version.join(OTHER)).unwrap();
    assert_eq!(names(&top), [ORIGIN]);
    assert_eq!(names(&version), [here()]);
    for refused in ["nohost", "a.example/UPPER", "a.example/b/c/v1"] {
        assert_eq!(fs::create_dir_all(top.join(refused)).unwrap_err().kind(), ErrorKind::PermissionDenied, "{refused}");
    }
}

/// A working directory whose clients use the mount as `tofufs tofurc --use plugin-cache` says.
struct Bed {
    registry: DockerRegistry,
    mount: Mount,
    base: tempfile::TempDir,
    name: &'static str,
}

impl Bed {
    fn new(name: &'static str, options: impl FnOnce(Options) -> Options) -> Option<Bed> {
        program(name)?;
        let registry = registry()?;
        tiny::publish(&registry, &["1.0.0"])?;
        let flags = mapped(&registry).args(declared(&["acme/tiny"]));
        let mount = Mount::start(&[registry.host()], options(flags))?;
        Some(Bed { registry, mount, base: tempfile::tempdir().expect("a temporary directory"), name })
    }

    fn client(&self, label: &str) -> Client {
        self.client_with(label, &configuration_for(&self.mount, "plugin-cache"))
    }

    fn client_with(&self, label: &str, configuration: &str) -> Client {
        let base = self.base.path().canonicalize().unwrap();
        Client::new(self.name, &base, label, configuration).expect("it is installed")
    }

    fn cached(&self) -> PathBuf {
        self.mount.join("plugin-cache").join(ORIGIN).join("acme/tiny/1.0.0").join(here())
    }

    /// That `client` has a link to the cached package, which is a link into the registry tree.
    fn check(&self, client: &Client) {
        assert_eq!(fs::read_link(client.installed("1.0.0")).unwrap(), self.cached());
        assert!(fs::read_link(self.cached()).unwrap().starts_with("../../../../../"));
        assert!(client.lock().contains("h1:"), "{}", client.lock());
    }
}

/// Without a lock file, with the one that this makes, with the registry stopped, and eight at once.
fn a_plugin_cache_is_hit_without_a_write(name: &'static str, read_only: bool) {
    let flags: &[&str] = if read_only { &["--read-only"] } else { &[] };
    let Some(mut bed) = Bed::new(name, |options| options.args(flags)) else { return };
    let client = bed.client("one");
    client.use_provider();
    bed.check(&client);
    let lock = client.lock();
    for with_lock in [true, false] {
        client.forget(with_lock);
        client.use_provider();
        bed.check(&client);
        assert_eq!(client.lock(), lock);
    }
    bed.registry.stop();
    client.forget(false);
    client.use_provider();

    for locked in [false, true] {
        let clients: Vec<_> = (0..8).map(|i| bed.client(&format!("many-{i}-{locked}"))).collect();
        std::thread::scope(|scope| {
            for client in &clients {
                let lock = &lock;
                scope.spawn(move || {
                    if locked {
                        fs::write(client.dir.join(".terraform.lock.hcl"), lock).unwrap();
                    }
                    client.run(&["init", "-input=false", "-no-color"]);
                });
            }
        });
        for client in &clients {
            bed.check(client);
            assert_eq!(client.lock(), lock);
        }
    }
    assert_eq!(bed.mount.requests().1, 1, "one download");
}

#[test]
fn terraform_hits_the_plugin_cache() {
    a_plugin_cache_is_hit_without_a_write("terraform", false);
}

#[test]
fn opentofu_hits_the_plugin_cache() {
    a_plugin_cache_is_hit_without_a_write("tofu", false);
}

#[test]
fn terraform_hits_the_plugin_cache_of_a_read_only_mount() {
    a_plugin_cache_is_hit_without_a_write("terraform", true);
}

#[test]
fn opentofu_hits_the_plugin_cache_of_a_read_only_mount() {
    a_plugin_cache_is_hit_without_a_write("tofu", true);
}

/// Locks that do not vouch for the cached package: by zh: alone, and by a hash that the package does not have.
fn locks_that_miss(name: &'static str) {
    let Some(bed) = Bed::new(name, |options| options) else { return };
    let first = bed.client("first");
    first.use_provider();
    let content = |client: &Client| fs::read(client.installed("1.0.0").join("terraform-provider-tiny_v1.0.0"));
    let before = content(&first).unwrap();
    let hashes = |line: &str| {
        let lock = first.lock();
        let kept = lock.lines().filter(|line| !line.trim_start().starts_with("\"h1:"));
        kept.map(
            |kept| if kept.contains("hashes") { format!("{kept}\n    \"{line}\",\n") } else { format!("{kept}\n") },
        )
        .collect::<String>()
    };
    let zip = tiny::packages("1.0.0").expect("the provider was built").swap_remove(0).1;
    let zh = bed.client("zh");
    fs::write(zh.dir.join(".terraform.lock.hcl"), hashes(&format!("zh:{}", tofufs::digest::Digest::of(&zip).hex())))
        .unwrap();
    let wrong = bed.client("wrong");
    fs::write(wrong.dir.join(".terraform.lock.hcl"), hashes("h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
        .unwrap();
    // OpenTofu compares the cached package with what it gets from the mirror. Terraform takes the cached one, and then
    // wants a hash of its own for it; `tofufs lock` adds one.
    let said = |client: &Client| {
        let output = client.output(&["init", "-input=false", "-no-color"]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let (done, text) = said(&zh);
    assert_eq!(done, name == "tofu", "{text}");
    assert!(done || text.contains("doesn't match any of the checksums recorded in the dependency lock file"), "{text}");
    let (done, text) = said(&wrong);
    assert!(!done && text.contains("doesn't match any of the checksums"), "{text}");
    // Whatever they say of it: the package is what it was.
    assert_eq!(content(&first).unwrap(), before);
    bed.check(&first);
}

#[test]
fn terraform_with_a_lock_that_misses_leaves_the_package_alone() {
    locks_that_miss("terraform");
}

#[test]
fn opentofu_with_a_lock_that_misses_leaves_the_package_alone() {
    locks_that_miss("tofu");
}

/// The refusal of [`unwritable`] as the clients, which are written in Go, print it.
fn refusal() -> &'static str {
    match unwritable() {
        rustix::io::Errno::ROFS => "read-only file system",
        _ => "permission denied",
    }
}

/// The configuration without the setting that `tofufs tofurc` prints, and without a lock file.
fn without_the_setting(name: &'static str) {
    let Some(bed) = Bed::new(name, |options| options) else { return };
    let printed = configuration_for(&bed.mount, "plugin-cache");
    let setting = "plugin_cache_may_break_dependency_lock_file = true\n";
    assert!(printed.contains(setting), "{printed}");
    let client = bed.client_with("one", &printed.replace(setting, ""));
    let program = bed.cached().join("terraform-provider-tiny_v1.0.0");
    let before = fs::read(&program).unwrap();
    let output = client.output(&["init", "-input=false", "-no-color"]);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // OpenTofu compares and leaves the package; Terraform would write over it.
    assert_eq!(output.status.success(), name == "tofu", "{text}");
    assert!(name == "tofu" || one_line(&text).contains(refusal()), "{text}");
    assert_eq!(fs::read(&program).unwrap(), before);
}

#[test]
fn terraform_is_refused_what_it_would_write_over() {
    without_the_setting("terraform");
}

#[test]
fn opentofu_compares_what_it_does_not_know() {
    without_the_setting("tofu");
}

/// A provider that the mapping is not for comes from elsewhere and is kept beside.
fn a_miss_is_kept_locally(name: &'static str) {
    if program(name).is_none() {
        return;
    }
    let Some((_registry, mount, _)) = cache(|options| options) else { return };
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    let Some(()) = tiny::write_mirror(&base.join("packed"), &["1.0.0"], true) else { return };
    let configuration = format!(
        "plugin_cache_dir = \"{}\"\nplugin_cache_may_break_dependency_lock_file = true\n{}",
        mount.join("plugin-cache").display(),
        crate::clients::file_system_mirror(&base.join("packed"))
    );
    let cached = mount.join("plugin-cache").join(ORIGIN).join("acme/tiny/1.0.0").join(here());
    for label in ["cold", "warm"] {
        let client = Client::new(name, &base, label, &configuration).expect("it is installed");
        client.use_provider();
        assert_eq!(fs::read_link(client.installed("1.0.0")).unwrap(), cached);
    }
    assert!(fs::symlink_metadata(&cached).unwrap().is_dir(), "the client's own copy");
    assert!(names(&mount.join("plugins").join(ORIGIN).join("acme")) == ["one"]);
}

#[test]
fn terraform_keeps_a_miss_in_the_plugin_cache() {
    a_miss_is_kept_locally("terraform");
}

#[test]
fn opentofu_keeps_a_miss_in_the_plugin_cache() {
    a_miss_is_kept_locally("tofu");
}
