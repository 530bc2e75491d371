//! Many readers of one package, and readers that are killed while they wait.

use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::support::hostile::{Behaviour, Reply};
use super::*;

const READERS: usize = 64;

/// What each of many readers gets that start at once.
fn all_at_once<T: Send>(read: impl Fn() -> T + Sync) -> Vec<T> {
    let start = Barrier::new(READERS);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    read()
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    })
}

/// O27
#[test]
fn many_cold_readers_cause_one_download_and_get_the_same_bytes() {
    let server = Hostile::start();
    let content = noise(6, 4 << 20);
    server.publish("net", "1.0.0", &module(&content));
    server.rule(
        blobs_of("net"),
        Behaviour::Slow { piece: 1 << 20, pause: Duration::from_millis(50) },
    );
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    let file = bed.path(&format!("{}/net:1.0.0", server.host())).join("main.tf");
    for read in all_at_once(|| fs::read(&file).unwrap()) {
        assert!(read == content);
    }
    assert_eq!(blob_requests(&server, "net"), 1);
    assert_eq!(bed.mount.requests().1, 1);
}

/// Z60: the same names, sizes and times, and other bytes.
#[test]
fn readers_of_packages_that_look_alike_get_each_their_own_bytes() {
    let server = Hostile::start();
    let contents = [noise(61, 300_000), noise(62, 300_000)];
    for (repo, content) in ["one", "two"].iter().zip(&contents) {
        server.publish(repo, "1.0.0", &module(content));
    }
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    let files = ["one", "two"]
        .map(|repo| bed.path(&format!("{}/{repo}:1.0.0", server.host())).join("main.tf"));
    for read in all_at_once(|| files.each_ref().map(|file| fs::read(file).unwrap())) {
        assert!(read == contents);
    }
    assert_eq!(["one", "two"].map(|repo| blob_requests(&server, repo)), [1, 1]);
}

/// O29
#[test]
fn many_readers_of_a_download_that_fails_get_the_same_error_once() {
    let server = Hostile::start();
    let (_, refused) = put_small(&server, "refused");
    let denied = Reply::error(403, "DENIED");
    server.rule(blobs_of("refused"), Behaviour::Answer(denied));
    put_small(&server, "flipped");
    let flipped = Behaviour::edit(|_, mut reply| {
        reply.body[300] ^= 1;
        reply
    });
    server.rule(blobs_of("flipped"), flipped);
    let Some(bed) = Bed::over(&[&server], &[]) else { return };
    for (repo, errno, requests) in [("refused", Errno::ACCESS, 1), ("flipped", Errno::IO, 2)] {
        let file = bed.path(&format!("{}/{repo}:1.0.0", server.host())).join("main.tf");
        for outcome in all_at_once(|| errno_of_reading(&file)) {
            assert_eq!(outcome, Some(errno), "{repo}");
        }
        assert_eq!(blob_requests(&server, repo), requests, "{repo}");
    }
    assert_eq!(
        bed.mount.log().matches(&refused.to_string()).count(),
        1,
        "said once: {}",
        bed.mount.log()
    );
}

/// A `cat` of a file that signals end, also where this test was started with some of them ignored,
/// as in the background of a script.
fn cat(path: &Path) -> Child {
    let mut cat = Command::new("env");
    cat.args(["--default-signal", "cat"]).arg(path);
    cat.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
}

/// How long a signalled child takes to end; at most as long as a mount may live.
fn ends(child: &mut Child) -> Duration {
    let began = Instant::now();
    let ended = support::wait_until(PATIENCE, || child.try_wait().unwrap().is_some());
    assert!(ended, "a reader outlives its signal");
    began.elapsed()
}

/// O30: long before the deadline.
#[test]
fn a_signal_ends_a_waiting_reader() {
    let server = Hostile::start();
    put_small(&server, "net");
    server.rule(blobs_of("net"), Behaviour::Silence);
    let Some(bed) = Bed::over(&[&server], &["--deadline", "100s"]) else { return };
    let file = bed.path(&format!("{}/net:1.0.0", server.host())).join("main.tf");
    for kind in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut child = cat(&file);
        assert!(support::wait_until(PATIENCE, || blob_requests(&server, "net") > 0));
        thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        signal(&child, kind);
        let took = ends(&mut child);
        println!("{kind:?}: gone after {took:?}");
        assert!(took < Duration::from_secs(10), "{kind:?}: {took:?}");
    }
    assert!(blob_requests(&server, "net") <= 2, "the fetch is joined, not repeated");
}

/// O30: the fetch outlives its reader by a deadline, so that the next one finds it.
#[test]
fn the_next_reader_joins_the_fetch_of_one_that_was_killed() {
    let server = Hostile::start();
    let content = noise(8, 1 << 20);
    server.publish("net", "1.0.0", &module(&content));
    server.rule(
        blobs_of("net"),
        Behaviour::Slow { piece: 1 << 16, pause: Duration::from_millis(80) },
    );
    let Some(bed) = Bed::over(&[&server], &["--deadline", "20s"]) else { return };
    let reference = format!("{}/net:1.0.0", server.host());
    let mut child = cat(&bed.path(&reference).join("main.tf"));
    assert!(support::wait_until(PATIENCE, || blob_requests(&server, "net") == 1));
    signal(&child, Signal::KILL);
    ends(&mut child);
    assert_eq!(bed.main_tf(&reference), content);
    assert_eq!(blob_requests(&server, "net"), 1);
}

/// O17: while a fetch is under way and somebody waits for it.
#[test]
fn a_signal_to_the_daemon_in_mid_fetch_leaves_no_mount_behind() {
    thread::scope(|scope| {
        for kind in [Signal::TERM, Signal::INT] {
            scope.spawn(move || {
                let server = Hostile::start();
                put_small(&server, "net");
                server.rule(blobs_of("net"), Behaviour::Silence);
                let Some(bed) = Bed::over(&[&server], &["--deadline", "2s"]) else { return };
                let mut child =
                    cat(&bed.path(&format!("{}/net:1.0.0", server.host())).join("main.tf"));
                assert!(support::wait_until(PATIENCE, || blob_requests(&server, "net") > 0));
                kill_process(bed.mount.pid(), kind).unwrap();
                let point = bed.mount.path().to_str().unwrap().to_owned();
                let mounted = || support::mount::mounted().contains(&point);
                assert!(support::wait_until(PATIENCE, || !mounted()), "{kind:?}: still mounted");
                ends(&mut child);
                let process = format!("/proc/{}/stat", bed.mount.pid().as_raw_nonzero());
                let gone =
                    || fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z"));
                assert!(support::wait_until(PATIENCE, gone), "{kind:?}: {}", bed.mount.log());
            });
        }
    });
}

/// Reads `file` while an alarm goes off after a second; prints how often that was, and what was
/// read or the errno. The call is to be restarted by the system if the second word is 1.
const ALARMED: &str = r#"
use POSIX;
my ($file, $restarts) = @ARGV;
my $alarms = 0;
my $action = POSIX::SigAction->new(sub { $alarms++ }, POSIX::SigSet->new, $restarts ? SA_RESTART : 0);
$action->safe(0);
sigaction(SIGALRM, $action);
alarm(1);
my $fd = POSIX::open($file, O_RDONLY);
defined $fd or print("$alarms errno ", $! + 0) and exit;
POSIX::read($fd, my $content, 100);
print "$alarms $content";
"#;

/// O31: the call is restarted or told EINTR, as the program asked the system; what is read is
/// right.
#[test]
fn an_alarm_that_a_waiting_reader_handles_restarts_or_interrupts_its_call() {
    let Some(perl) = support::program("perl") else { return };
    for restarts in ["1", "0"] {
        let server = Hostile::start();
        server.publish("net", "1.0.0", &module(b"# sound"));
        server.script(
            blobs_of("net"),
            [Behaviour::Slow { piece: 40, pause: Duration::from_millis(500) }],
        );
        let Some(bed) = Bed::over(&[&server], &["--deadline", "20s"]) else { return };
        let file = bed.path(&format!("{}/net:1.0.0", server.host())).join("main.tf");
        let mut command = Command::new(&perl);
        command.args(["-e", ALARMED]).arg(&file).arg(restarts);
        let said = String::from_utf8(finish(command).stdout).unwrap();
        let interrupted = format!("1 errno {}", Errno::INTR.raw_os_error());
        assert!(
            said == "1 # sound" || restarts == "0" && said == interrupted,
            "restarts={restarts}: {said}"
        );
        assert_eq!(fs::read(&file).unwrap(), b"# sound");
    }
}
