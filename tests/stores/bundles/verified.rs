//! `tofufs bundle verify`.

use super::*;

#[test]
fn verify_finds_what_is_damaged_missing_or_lacking() {
    let bed = Bed::new();
    let [net, hello] =
        ["acme/net:1.0.0", "acme/providers/hello:0.1.0"].map(|r| format!("{HOST}/{r}"));
    bed.bundle(&[&net, &hello, "--platform", "linux_amd64", "-o", "oci-archive:b.tar"]);
    bed.write("two.hcl", &lock_file(&["linux_amd64", "darwin_arm64"]));
    bed.write("one.hcl", &lock_file(&["linux_amd64"]));
    let lacking = |words: &[&str]| {
        let (code, found) = bed.verify(&[&["oci-archive:b.tar"], words, &MIRROR[..]].concat());
        let rules: Vec<_> = found["lacking"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["rule"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            code == Some(0),
            rules.is_empty() && found["bad"] == Value::Array(vec![]),
            "{found}"
        );
        rules
    };
    assert_eq!(lacking(&["--lock-file", "one.hcl"]), [] as [&str; 0]);
    assert_eq!(lacking(&["--lock-file", "two.hcl", "--platform", "linux_amd64"]), [] as [&str; 0]);
    let two = lacking(&["--lock-file", "two.hcl"]);
    assert!(
        two.len() == 1 && two[0].starts_with("1 packages") && two[0].contains("darwin_arm64"),
        "{two:?}"
    );
    let darwin = lacking(&["--lock-file", "two.hcl", "--platform", "darwin_arm64"]);
    assert!(darwin.len() == 1 && darwin[0].contains("darwin_arm64 is not carried"), "{darwin:?}");
    let newer = lock_file(&["linux_amd64"]).replace("0.1.0", "0.2.0");
    bed.write("newer.hcl", &newer);
    let newer = lacking(&["--lock-file", "newer.hcl"]);
    assert!(newer.len() == 1 && newer[0].contains("hello:0.2.0 is not there"), "{newer:?}");

    // L26: each of some flipped bits in the contents is found.
    let file = fs::File::options().read(true).write(true).open(bed.path("b.tar")).unwrap();
    let whole = fs::read(bed.path("b.tar")).unwrap();
    for part in [
        &provider().blobs[2][..],
        b"imageLayoutVersion",
        b"org.opencontainers.image.ref.name",
        b"\"config\"",
    ] {
        let at = whole.windows(part.len()).position(|w| w == part).expect("a part") as u64
            + part.len() as u64 / 2;
        file.write_all_at(&[whole[at as usize] ^ 0x20], at).unwrap();
        let output = bed.run(&["verify", "oci-archive:b.tar"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(1) && said.contains("bad: "), "{said}");
        file.write_all_at(&whole[at as usize..=at as usize], at).unwrap();
    }
    assert_eq!(bed.verify(&["oci-archive:b.tar"]).0, Some(0));
    bed.bundle(&[&net, "-o", "oci:store"]);
    let package = &pack::module(&[("main.tf", b"# 1.0.0\n"), ("sub/main.tf", b"# sub")]).blobs[1];
    fs::remove_file(layouts::blob_path(
        &bed.path("store").join(HOST).join("acme/net"),
        &Digest::of(package),
    ))
    .unwrap();
    let (code, found) = bed.verify(&["oci:store"]);
    assert!(
        code == Some(1) && found["bad"][0]["rule"].as_str().unwrap().contains("missing"),
        "{found}"
    );
    bed.bundle(&[&net, "-o", "oci:store"]);
    assert_eq!(bed.verify(&["oci:store"]).0, Some(0), "bundling again heals");
}

/// A file that somebody made longer, without a byte on the disk: at 1 TiB it would take hours to
/// hash.
#[test]
fn verify_reads_no_more_of_a_file_than_its_descriptor_says() {
    const LONG: u64 = 1 << 40;
    let bed = Bed::new();
    let net = format!("{HOST}/acme/net:1.0.0");
    let layout = bed.path("store").join(HOST).join("acme/net");
    let module = pack::module(&[("main.tf", b"# 1.0.0\n"), ("sub/main.tf", b"# sub")]);
    let stray = Digest::of(b"nothing names it");
    for digest in [Digest::of(&module.blobs[1]), module.digest(), stray] {
        bed.bundle(&[&net, "-o", "oci:store"]);
        let path = layouts::blob_path(&layout, &digest);
        fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .unwrap()
            .set_len(LONG)
            .unwrap();
        let (code, found) = bed.verify(&["oci:store"]);
        let subject = format!("{HOST}/acme/net@{digest}");
        let bad =
            found["bad"].as_array().unwrap().iter().find(|bad| bad["what"] == subject.as_str());
        let rule = bad.unwrap_or_else(|| panic!("{found}"))["rule"].as_str().unwrap();
        assert!(code == Some(1) && rule.contains(&format!("has {LONG} bytes")), "{found}");
        assert!(found["bytes"].as_u64() < Some(1 << 20), "{found}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_descriptor_that_gives_another_size_than_the_file_has_is_found() {
    let bed = Bed::new();
    let layout = bed.path("store").join(HOST).join("acme/net");
    for by in [1, -1] {
        let mut module = pack::module(&[("main.tf", b"# here\n")]);
        let size = module.blobs[1].len() as i64;
        let root = module.manifests.last_mut().unwrap();
        let text = String::from_utf8(root.bytes.clone()).unwrap();
        root.bytes = text
            .replace(&format!("\"size\":{size}"), &format!("\"size\":{}", size + by))
            .into_bytes();
        layouts::add(&bed.path("store"), HOST, "acme/net", "1.0.0", &module);
        let (code, found) = bed.verify(&["oci:store"]);
        assert!(code == Some(1) && found["bad"].to_string().contains("acme/net:"), "{found}");
        fs::remove_dir_all(&layout).unwrap();
    }
}
