//! What is asked of a provider registry, request by request.

use std::fs;

use crate::support::mount::{Mount, Options};
use crate::{Bed, names, package_of, program_of};

/// The requests that are no HEAD, which asks for a size.
fn small(asked: &[String]) -> Vec<&String> {
    asked.iter().filter(|asked| !asked.starts_with("HEAD ") && !asked.ends_with(".zip")).collect()
}

fn zips(asked: &[String]) -> usize {
    asked.iter().filter(|asked| asked.starts_with("GET ") && asked.ends_with(".zip")).count()
}

/// Looks at everything as a client does that searches a mirror.
fn walk(mount: &Mount, view: &str, bed: &Bed) {
    let acme = mount.join(format!("{view}/{}/acme", bed.origin.host));
    for kind in names(&acme) {
        for name in names(&acme.join(&kind)) {
            let at = acme.join(&kind).join(&name);
            fs::symlink_metadata(&at).unwrap();
            fs::metadata(&at).unwrap();
            if at.is_dir() {
                for platform in names(&at) {
                    fs::metadata(at.join(platform)).unwrap();
                }
            }
        }
    }
}

#[test]
fn listing_costs_one_request_and_a_version_three_beside_its_zip() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    bed.origin.publish("one", "1.1.0");
    let Some(mount) = bed.mount("", bed.options()) else { return };
    let one = mount.join(bed.address("one"));
    let cold = bed.asked(|| assert_eq!(names(&one).len(), 2));
    assert_eq!(cold, ["GET /v1/providers/acme/one/versions"]);
    let warm = bed.asked(|| assert_eq!(names(&one).len(), 2));
    assert_eq!(warm, [""; 0]);

    let at = one.join("1.0.0");
    let own = bed.asked(|| {
        fs::read(at.join("linux_amd64").join(program_of(&release))).unwrap();
    });
    let wanted = [
        "GET /v1/providers/acme/one/1.0.0/download/linux/amd64",
        "GET /files/terraform-provider-one_1.0.0_SHA256SUMS",
        "GET /files/terraform-provider-one_1.0.0_SHA256SUMS.sig",
    ];
    assert_eq!(small(&own), wanted);
    assert_eq!(zips(&own), 1);
    let other = bed.asked(|| {
        fs::read(at.join("linux_arm64.zip")).unwrap();
        names(&at.join("linux_arm64"));
    });
    assert_eq!(small(&other), ["GET /v1/providers/acme/one/1.0.0/download/linux/arm64"]);
    assert_eq!(zips(&other), 1, "packed and unpacked are one download");
    let again = bed.asked(|| {
        fs::read(at.join("linux_amd64.zip")).unwrap();
        names(&at.join("linux_arm64"));
    });
    assert_eq!(again, [""; 0]);
    let all = bed.origin.server.requests();
    assert!(all.iter().all(|seen| !seen.path.contains("darwin")), "nobody opened that: {all:?}");
}

#[test]
fn a_walk_costs_one_list_per_provider_and_sizes_two_requests_per_version_once() {
    let Some(mut bed) = Bed::new() else { return };
    for kind in ["one", "two"] {
        for version in ["1.0.0", "1.1.0", "2.0.0"] {
            bed.origin.publish(kind, version);
        }
    }
    let (one, two) = (bed.address("one"), bed.address("two"));
    let options = || bed.options().args(["--provider", &one, "--provider", &two]);
    let cache = bed.path("cache");
    let Some(mount) = bed.mount("", options().cache(&cache)) else { return };
    let lists = bed.asked(|| walk(&mount, "plugins", &bed));
    let list = |kind: &str| format!("GET /v1/providers/acme/{kind}/versions");
    // The mount has looked at one of them when it began.
    assert!(
        lists.len() <= 2 && lists.iter().all(|asked| asked.ends_with("/versions")),
        "{lists:?}"
    );
    assert_eq!(bed.origin.server.requests_to(&list("one")[4..]).len(), 1);

    let sizes = bed.asked(|| walk(&mount, "mirror", &bed));
    let of_version = |version: &str| sizes.iter().filter(|asked| asked.contains(version)).count();
    for version in ["one/1.0.0", "two/2.0.0"] {
        assert_eq!(of_version(version), 1, "{sizes:?}");
    }
    assert_eq!(small(&sizes).len(), 6, "one document for each version: {sizes:?}");
    assert_eq!(sizes.len(), 12, "and one question for its size: {sizes:?}");
    assert_eq!(zips(&sizes), 0);
    assert_eq!(bed.asked(|| walk(&mount, "mirror", &bed)), [""; 0]);
    // What was seen like that opens, and is checked then.
    let name = "terraform-provider-one_1.0.0_linux_amd64.zip";
    let opened = bed.asked(|| {
        let zip = fs::read(mount.join(format!("mirror/{one}/{name}"))).unwrap();
        assert_eq!(
            zip.len() as u64,
            fs::metadata(mount.join(format!("mirror/{one}/{name}"))).unwrap().len()
        );
    });
    assert_eq!(zips(&opened), 1);
    assert!(opened.iter().any(|asked| asked.ends_with("SHA256SUMS.sig")), "{opened:?}");
    drop(mount);

    // A later mount knows the sizes.
    let Some(mount) = bed.mount("", options().cache(&cache)) else { return };
    let later = bed.asked(|| walk(&mount, "mirror", &bed));
    assert!(later.iter().all(|asked| asked.ends_with("/versions")), "{later:?}");
}

#[test]
fn a_version_without_this_platform_is_resolved_by_the_first_that_is_listed() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    let authority = bed.origin.authority.display().to_string();
    let options = Options::new().args(["--ca-file", &authority, "--platform", "plan9_mips"]);
    let Some(mount) = bed.mount("", options) else { return };
    let one = mount.join(bed.address("one"));
    let asked = bed.asked(|| assert_eq!(names(&one.join("1.0.0")).len(), 6));
    assert_eq!(
        small(&asked)[1..],
        [
            "GET /v1/providers/acme/one/1.0.0/download/darwin/arm64",
            "GET /files/terraform-provider-one_1.0.0_SHA256SUMS",
            "GET /files/terraform-provider-one_1.0.0_SHA256SUMS.sig",
        ]
    );
    assert_eq!(names(&one.join("1.0.0/linux_amd64")), package_of(&release));
}

#[test]
fn many_who_open_a_package_cold_cause_one_download() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    let Some(mount) = bed.mount("", bed.options()) else { return };
    let file = mount.join(bed.address("one")).join("1.0.0/linux_amd64").join(program_of(&release));
    let asked = bed.asked(|| {
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| fs::read(&file).unwrap());
            }
        });
    });
    assert_eq!(zips(&asked), 1, "{asked:?}");
    assert_eq!(small(&asked).len(), 4, "{asked:?}");
}
