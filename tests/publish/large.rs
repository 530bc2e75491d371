//! A program as large as providers' are, in one entry: published from a directory, read, and
//! published as a zip, each in memory that does not depend on its size.
//!
//! `TOFUFS_LARGE_MIB` is how large it is (256 unless it is set; 2048 takes minutes and 12 GiB of
//! disk).

use std::io::Read;
use std::process::Child;

use rustix::process::Pid;
use tofufs::name::Platform;

use super::*;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::Mount;
use crate::support::skip;

/// What any of the processes may need at most.
const MEMORY_MIB: u64 = 96;
const PROGRAM: &str = "terraform-provider-large_v1.0.0";

fn size() -> u64 {
    let mib =
        std::env::var("TOFUFS_LARGE_MIB").map_or(256, |value| value.parse().expect("a number"));
    mib << 20
}

/// The most memory that a process had so far, in MiB.
fn most_memory(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10)
}

/// Pushes; the most memory that it took.
fn memory_of_push<S: AsRef<OsStr>>(bed: &Bed, words: &[S]) -> u64 {
    let said = fs::File::create(bed.path("said")).unwrap();
    let mut command = bed.command(words);
    let mut child: Child = command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
    let (pid, mut most, mut status) = (Pid::from_child(&child), 0, None);
    support::wait_until(Duration::from_secs(1200), || {
        most = most.max(most_memory(pid).unwrap_or(0));
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let said = fs::read_to_string(bed.path("said")).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{said}");
    most
}

/// The program: it cannot be deflated, and takes no room on disk.
fn program(path: &Path) {
    let mut random = fastrand::Rng::with_seed(1);
    let head: Vec<u8> = (0..1 << 20).map(|_| random.u8(..)).collect();
    fs::write(path, head).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_len(size()).unwrap();
}

/// Whether two files have the same bytes.
fn same(one: &Path, other: &Path) -> bool {
    let mut files = [one, other].map(|path| fs::File::open(path).unwrap());
    let mut pieces = [(); 2].map(|()| vec![0; 1 << 20]);
    for _ in 0..size() >> 20 {
        for (file, piece) in files.iter_mut().zip(&mut pieces) {
            file.read_exact(piece).unwrap();
        }
        if pieces[0] != pieces[1] {
            return false;
        }
    }
    files.iter_mut().all(|file| file.read(&mut [0]).unwrap() == 0)
}

#[test]
fn a_package_with_one_huge_file_is_published_and_read_in_little_memory() {
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let (host, bed, platform) = (registry.host(), Bed::new(), Platform::host());
    let place = bed.path("release").join(platform.to_string());
    fs::create_dir_all(&place).unwrap();
    program(&place.join(PROGRAM));
    let plain_http = |words: &[&str]| -> Vec<String> {
        ["--plain-http", &host].iter().chain(words).map(|word| (*word).to_owned()).collect()
    };
    let packed =
        memory_of_push(&bed, &plain_http(&["release", &format!("{host}/acme/large:1.0.0")]));

    let options = plain(&host).longer(Duration::from_secs(1200));
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let release = mount.join(format!("{host}/acme/large/1.0.0"));
    assert!(same(&place.join(PROGRAM), &release.join(platform.to_string()).join(PROGRAM)));
    let read = most_memory(mount.pid()).unwrap();

    let name = format!("terraform-provider-large_1.0.0_{platform}.zip");
    fs::copy(release.join(format!("{platform}.zip")), bed.path(&name)).unwrap();
    let copied = most_memory(mount.pid()).unwrap();
    let pushed = memory_of_push(&bed, &plain_http(&[&name, &format!("{host}/acme/again")]));

    println!(
        "{} MiB: push {packed} MiB, read {read}, copy {copied}, push of the zip {pushed}",
        size() >> 20
    );
    for memory in [packed, read, copied, pushed] {
        assert!(memory <= MEMORY_MIB, "{memory} MiB are more than {MEMORY_MIB}");
    }
}

#[test]
fn packages_over_a_limit_are_refused_with_the_option_that_raises_it() {
    let (bed, store) = (Bed::new(), tempfile::tempdir().unwrap());
    bed.write("module/main.tf", "");
    fs::File::create(bed.path("module/data")).unwrap().set_len(3 << 20).unwrap();
    let target = format!("oci:{}/reg.example/acme/m:1.0.0", store.path().display());
    let refused = bed.refused(1, &["--entry-max-size", "2MiB", "module", &target]);
    assert!(
        refused.contains("--entry-max-size raises it") && refused.contains("2097152"),
        "{refused}"
    );
    let refused = bed.refused(1, &["--archive-max-size", "1KiB", "module", &target]);
    assert!(refused.contains("--archive-max-size raises it"), "{refused}");
    bed.pushed(&["--entry-max-size", "3MiB", "--archive-max-size", "8KiB", "module", &target]);

    let source = format!("oci:{}", store.path().display());
    let limited = Options::new().args(["--entry-max-size", "2MiB"]);
    let Some(mut mount) = Mount::start(&[&source], limited) else { return skip("no mount") };
    let release = mount.join("reg.example/acme/m/1.0.0");
    assert_eq!(fs::read_dir(&release).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    let reason = mount.xattr(&release, "user.tofufs.error").unwrap();
    assert!(reason.contains("--entry-max-size raises it"), "{reason}");
    assert!(mount.umount().status.success());
    assert!(mount.again_with(&[&source], Options::new()).status.success());
    assert_eq!(fs::metadata(release.join("data")).unwrap().len(), 3 << 20);
}
