//! How much memory the largest inputs take that a stranger can send.

use std::io::{Cursor, Write};
use std::time::Duration;

use rustix::io::Errno;
use zip::write::SimpleFileOptions;

use super::support::hostile::{Behaviour, Hostile, Reply};
use super::support::mount::{Mount, Options};
use super::support::pack;
use super::*;

/// The most that a mount may take, in MiB.
const MOST: u64 = 128;
const MILLION: u32 = 1_000_000;

/// The most that the daemon has taken, in MiB.
fn peak(mount: &Mount) -> u64 {
    let path = format!("/proc/{}/status", mount.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|e| Errno::from_io_error(&e))
}

fn tell(name: &'static str, peak: u64, outcome: Result<(), String>) {
    let mut tries = Tries::default();
    tries.count(outcome.and_then(|()| {
        if peak <= MOST { Ok(()) } else { Err(format!("{peak} MiB are more than {MOST}")) }
    }));
    tries.score(name, 1, format!("{peak} MiB at most, of {MOST}")).tell();
}

/// An archive of so many empty files in directories of a thousand.
fn archive(entries: u32) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default());
    for number in 0..entries {
        writer.start_file(format!("{}/{number}.tf", number / 1000), options).unwrap();
        writer.write_all(b"#").unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn mount(server: &Hostile) -> Option<Mount> {
    let options = Options::new()
        .args(["--plain-http", &server.host(), "--deadline", "300s"])
        .longer(Duration::from_secs(600));
    Mount::start(&[server.host()], options)
}

/// Z43
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn an_archive_of_a_million_entries_is_refused_in_little_memory() {
    let server = Hostile::start();
    server.publish("net", "1.0.0", &pack::module_of(archive(MILLION)));
    let Some(mount) = mount(&server) else { return };
    let opened = errno(fs::read_dir(mount.join(format!("{}/net:1.0.0", server.host()))));
    let outcome = match opened {
        Some(Errno::FBIG) => Ok(()),
        other => Err(format!("opening it gives {other:?}, not EFBIG")),
    };
    tell("memory of a million entries", peak(&mount), outcome);
}

/// Z43: as many as the limit allows are shown.
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn an_archive_of_as_many_entries_as_are_allowed_is_listed_in_little_memory() {
    let entries = 200_000;
    let server = Hostile::start();
    server.publish("net", "1.0.0", &pack::module_of(archive(entries)));
    let Some(mount) = mount(&server) else { return };
    let release = mount.join(format!("{}/net:1.0.0", server.host()));
    let mut found = 0;
    for dir in fs::read_dir(&release).unwrap() {
        found += fs::read_dir(dir.unwrap().path()).unwrap().count();
    }
    let outcome = if found == entries as usize {
        Ok(())
    } else {
        Err(format!("{found} of {entries} entries are listed"))
    };
    tell("memory of 200,000 entries", peak(&mount), outcome);
}

/// R24
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn a_repository_of_a_million_tags_is_refused_in_little_memory_and_a_named_tag_is_found() {
    const PAGE: u32 = 5000;
    let server = Hostile::start();
    server.publish("net", "1.0.0", &pack::module(&[("main.tf", b"# sound")]));
    let page = |seen: &super::support::hostile::Seen, _: Reply| {
        let last = seen.path.split("last=t").nth(1).map_or(0, |text| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        });
        let tags: Vec<String> = (last + 1..=last + PAGE).map(|n| format!("t{n:07}")).collect();
        let body = json!({"name": "net", "tags": tags}).to_string();
        let reply = Reply::new(200, "application/json", body);
        if last + PAGE >= MILLION {
            return reply;
        }
        let next = format!("</v2/net/tags/list?n={PAGE}&last=t{:07}>", last + PAGE);
        reply.with("link", format!("{next}; rel=\"next\""))
    };
    server.rule(|seen| seen.path.contains("/tags/list"), Behaviour::edit(page));
    let Some(mount) = mount(&server) else { return };
    let listed = errno(fs::read_dir(mount.join(format!("{}/net", server.host()))));
    let named = right(&mount.join(format!("{}/net:1.0.0/main.tf", server.host())), b"# sound");
    let outcome = match listed {
        Some(Errno::FBIG) => named,
        other => Err(format!("listing gives {other:?}, not EFBIG")),
    };
    tell("memory of a million tags", peak(&mount), outcome);
}

/// L22: very many names that nobody has.
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn very_many_lookups_of_what_is_not_there_cost_little_memory() {
    let lookups = amount(200_000, 20_000);
    let server = Hostile::start();
    server.publish("net", "1.0.0", &pack::module(&[("main.tf", b"# sound")]));
    let Some(mount) = mount(&server) else { return };
    let repository = mount.join(format!("{}/net", server.host()));
    let mut outcome = Ok(());
    for number in 0..lookups {
        let found = errno(fs::metadata(repository.join(format!("nothing-{number}"))));
        if found != Some(Errno::NOENT) {
            outcome = Err(format!("lookup {number} gives {found:?}"));
            break;
        }
    }
    let asked = server.requests().len();
    println!("{lookups} lookups, {asked} requests");
    tell("memory of lookups of nothing", peak(&mount), outcome);
}
