//! `plugin-cache/`: what is there is linked and never written, what is not is kept locally.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clients::{Client, configuration_for};
use crate::support::docker_registry::DockerRegistry;
use crate::support::mount::{Mount, Options};
use crate::support::{pack, program};
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
    const PROBE: &str = "import fcntl, sys\nf = open(sys.argv[1], 'r+')\n\
         fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n";
    !Command::new("python3")
        .args(["-c", PROBE])
        .arg(file)
        .output()
        .expect("python runs")
        .status
        .success()
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
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .unwrap();
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
    for other in [
        "plugin-cache/x.lock".into(),
        version.parent().unwrap().join("x.lock"),
        version.join("x.json"),
    ] {
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

/// Every file of a directory, with its bytes.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    names(dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

/// A shell's work in `dir`, by a process of its own; what it said.
fn shell(dir: &Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euc", script])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_comes_from_a_registry_is_there_whatever_a_client_does_to_it() {
    let Some((_registry, mount, version)) = cache(|options| options) else { return };
    let package = version.join(here());
    let plugins = mount.join("plugins").join(ORIGIN).join("acme/one/1.0.0").join(here());
    let before = contents(&package);
    let is_whole = |what: &str| {
        assert_eq!(
            (contents(&package), contents(&plugins)),
            (before.clone(), before.clone()),
            "{what}"
        );
        assert_eq!(names(&version), [here()], "{what}");
        assert!(fs::symlink_metadata(&package).unwrap().is_symlink(), "{what}");
    };
    let (link, plugin) = (here(), "terraform-provider-one_v1.0.0");
    for (what, script) in [
        ("taken away", format!("rm {link}; test -L {link}")),
        ("taken away file by file", format!("rm {link}/*")),
        ("all of it taken away", "rm -r ../../../../*".to_owned()),
        (
            "the same bytes",
            format!("cp -L {link}/{plugin} /tmp/$$; cat /tmp/$$ > {link}/{plugin}; rm /tmp/$$"),
        ),
        ("other modes and times", format!("chmod 700 {link}/{plugin}; touch {link}/{plugin}")),
        ("cut and left", format!(": > {link}/{plugin}")),
        ("cut", format!("truncate -s 3 {link}/README.md")),
        (
            "made anew",
            format!(
                "cp -L {link}/README.md /tmp/$$; rm {link}/README.md; cp /tmp/$$ {link}/README.md; \
                 rm /tmp/$$"
            ),
        ),
    ] {
        shell(&version, &script);
        is_whole(what);
    }
    for _ in 0..2 {
        fs::remove_file(&package).unwrap();
        symlink(&plugins, &package).unwrap();
        is_whole("taken away and put back by one client");
    }
    let refused = |outcome: std::io::Result<()>| outcome.unwrap_err().kind();
    assert_eq!(refused(fs::rename(&package, version.join(OTHER))), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(refused(fs::create_dir(&package)), ErrorKind::AlreadyExists);
    assert_eq!(refused(symlink("/x", &package)), ErrorKind::AlreadyExists);
    assert_eq!(refused(fs::write(plugins.join(plugin), "")), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(refused(fs::remove_file(&plugins)), ErrorKind::ReadOnlyFilesystem);
    is_whole("in the end");
}

/// What a process took away is gone for it, and there for everybody else.
#[test]
fn a_package_that_one_client_takes_away_is_there_for_the_others() {
    let Some((_registry, _mount, version)) = cache(|options| options) else { return };
    let package = version.join(here());
    fs::remove_file(&package).unwrap();
    for _ in 0..3 {
        assert_eq!(fs::symlink_metadata(&package).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(shell(&version, &format!("cat {}/README.md", here())), "a provider\n");
    }
    fs::create_dir(&package).unwrap();
    fs::write(package.join("own"), "own").unwrap();
    assert_eq!(
        shell(&version, &format!("cat {}/own", here())),
        "own",
        "kept, where it is something else"
    );
    fs::remove_dir_all(&package).unwrap();
}

/// Something else that is written over a package is kept, and shown in the plugin cache alone.
#[test]
fn another_package_that_is_written_over_one_is_kept_locally() {
    let Some((_registry, mut mount, version)) = cache(|options| options) else { return };
    let (package, plugin) = (version.join(here()), "terraform-provider-one_v1.0.0");
    let plugins = mount.join("plugins").join(ORIGIN).join("acme/one/1.0.0").join(here());
    let before = contents(&plugins);
    // The beginning is the same.
    let other = [&before.iter().find(|(name, _)| name == plugin).unwrap().1[..2], b"ther"].concat();
    fs::write(package.join(plugin), &other).unwrap();
    fs::write(package.join("new"), "new").unwrap();
    let look = || {
        let readme = ("README.md".to_owned(), b"a provider\n".to_vec());
        assert_eq!(
            contents(&package),
            [readme, ("new".into(), b"new".to_vec()), (plugin.into(), other.clone())]
        );
        assert!(fs::metadata(package.join(plugin)).unwrap().permissions().mode() & 0o111 == 0o111);
        assert!(fs::symlink_metadata(&package).unwrap().is_dir());
        assert_eq!((contents(&plugins), names(&version)), (before.clone(), vec![here()]));
    };
    look();
    assert!(mount.umount().status.success() && mount.again().status.success());
    look();
    fs::remove_dir_all(&package).unwrap();
    assert_eq!(contents(&package), before, "what the registry has is there again");
}

/// What the registry turns out to lack is the client's to install.
#[test]
fn a_platform_that_a_release_lacks_is_kept_locally() {
    let Some(registry) = registry() else { return };
    registry.push("mirror/acme/one").artifact("1.0.0", &pack::provider("one", "1.0.0", &[OTHER]));
    let Some(mount) = Mount::start(&[registry.host()], mapped(&registry)) else { return };
    let package = mount.join("plugin-cache").join(ORIGIN).join("acme/one/1.0.0").join(here());
    // It is taken to be there until the release was entered.
    assert_eq!(fs::read_dir(&package).unwrap_err().kind(), ErrorKind::NotFound);
    fs::create_dir(&package).unwrap();
    fs::write(package.join("terraform-provider-one_v1.0.0"), "own").unwrap();
    assert_eq!(names(&package), ["terraform-provider-one_v1.0.0"]);
}

/// A program that runs is written over by who installs it once more.
#[test]
fn a_plugin_that_runs_is_written_over() {
    let Some(registry) = registry() else { return };
    let shell = fs::read(fs::canonicalize("/bin/sleep").unwrap()).unwrap();
    let zip = pack::provider_zip("one", "1.0.0", &shell);
    registry.push("mirror/acme/one").artifact("1.0.0", &pack::provider_of(&[(&here(), zip)]));
    for flags in [&[][..], &["--no-passthrough"]] {
        let Some(mount) = Mount::start(&[registry.host()], mapped(&registry).args(flags)) else {
            return;
        };
        let version = mount.join("plugin-cache").join(ORIGIN).join("acme/one/1.0.0");
        let plugin = version.join(here()).join("terraform-provider-one_v1.0.0");
        let mut running = Command::new(&plugin).arg("60").spawn().unwrap();
        // As the clients do before they install.
        assert_eq!(names(&version), [here()]);
        let written = fs::write(&plugin, &shell);
        running.kill().and_then(|()| running.wait()).unwrap();
        written.unwrap();
        assert_eq!(Command::new(&plugin).arg("0").status().unwrap().code(), Some(0));
    }
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
        assert_eq!(
            fs::create_dir_all(top.join(refused)).unwrap_err().kind(),
            ErrorKind::PermissionDenied,
            "{refused}"
        );
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
        Some(Bed {
            registry,
            mount,
            base: tempfile::tempdir().expect("a temporary directory"),
            name,
        })
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

    /// That `client` has a link to the cached package, which is what the registry has.
    fn check(&self, client: &Client) {
        assert_eq!(fs::read_link(client.installed("1.0.0")).unwrap(), self.cached());
        assert!(fs::symlink_metadata(self.cached()).unwrap().is_symlink());
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

/// Locks that do not vouch for the cached package: by zh: alone, and by a hash that the package
/// does not have.
fn locks_that_miss(name: &'static str) {
    let Some(bed) = Bed::new(name, |options| options) else { return };
    let first = bed.client("first");
    first.use_provider();
    let content = |client: &Client| {
        fs::read(client.installed("1.0.0").join("terraform-provider-tiny_v1.0.0"))
    };
    let before = content(&first).unwrap();
    let hashes = |line: &str| {
        let lock = first.lock();
        let kept = lock.lines().filter(|line| !line.trim_start().starts_with("\"h1:"));
        kept.map(|kept| {
            if kept.contains("hashes") {
                format!("{kept}\n    \"{line}\",\n")
            } else {
                format!("{kept}\n")
            }
        })
        .collect::<String>()
    };
    let zip = tiny::packages("1.0.0").expect("the provider was built").swap_remove(0).1;
    let zh = bed.client("zh");
    fs::write(
        zh.dir.join(".terraform.lock.hcl"),
        hashes(&format!("zh:{}", tofufs::digest::Digest::of(&zip).hex())),
    )
    .unwrap();
    let wrong = bed.client("wrong");
    fs::write(
        wrong.dir.join(".terraform.lock.hcl"),
        hashes("h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    )
    .unwrap();
    // OpenTofu compares the cached package with what it gets from the mirror. Terraform takes the
    // cached one, and then wants a hash of its own for it; `tofufs lock` adds one.
    let said = |client: &Client| {
        let output = client.output(&["init", "-input=false", "-no-color"]);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let (done, text) = said(&zh);
    assert_eq!(done, name == "tofu", "{text}");
    assert!(
        done || text
            .contains("doesn't match any of the checksums recorded in the dependency lock file"),
        "{text}"
    );
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
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // OpenTofu compares and leaves the package; Terraform writes the same once more.
    assert!(output.status.success(), "{text}");
    assert_eq!(fs::read(&program).unwrap(), before);
}

#[test]
fn terraform_writes_once_more_what_it_does_not_know() {
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
