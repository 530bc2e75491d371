use super::*;

/// As Terraform 1.11.4 and OpenTofu 1.12.6 wrote it, but for the program's name in the first line.
const WRITTEN: &str = r#"# This file is maintained automatically by "terraform init".
# Manual edits may be lost in future updates.

provider "example.com/acme/zeta" {
  version     = "1.0.0"
  constraints = ">= 0.9.0, != 1.5.0, < 2.0.0"
  hashes = [
    "h1:bU3A3s1qXu3U8oVaK9BrYcYwYF/A51qHkK3IB1u3Qro=",
    "h1:u+OdKVRJdLNgOUj6hnZHvKx0tRm3FpyqXHIzAOAFUEw=",
  ]
}

provider "example.com:8443/acme/b-x" {
  version = "2.1.0+b1"
  hashes = [
    "h1:B4v7gcH67Pteys39heBsfYEezzjdD5kIhXbCqNGJa/A=",
    "h1:jf1L+GmbVJVNvcI/I0VZRp9u+FtoJTtzjJM0j8LI+Fg=",
  ]
}

provider "registry.terraform.io/hashicorp/null" {
  version     = "3.2.2"
  constraints = "~> 3.2"
  hashes = [
    "h1:TbWNVAMPjST/iIGT+BWRMgqoTValiVTOuWCS0zT4AvA=",
    "h1:ZSCFO8WOXox0y4e+NFe/vfnCAiMrrUibp9NA51B/xYY=",
  ]
}
"#;

fn address(text: &str) -> ProviderAddr {
    ProviderAddr::parse(text, &"registry.opentofu.org".parse().unwrap()).unwrap()
}

fn lock(version: &str, constraints: &str, hashes: &[&str]) -> ProviderLock {
    ProviderLock {
        version: version.parse().unwrap(),
        constraints: constraints.parse().unwrap(),
        hashes: hashes.iter().map(|h| h.parse().unwrap()).collect(),
    }
}

fn set(file: &mut LockFile, address: &ProviderAddr, lock: &ProviderLock) {
    file.set(&BTreeMap::from([(address.clone(), lock.clone())])).unwrap();
}

#[test]
fn a_new_file_is_what_the_clients_write_whatever_the_order() {
    let read = LockFile::parse(WRITTEN).unwrap();
    assert_eq!(read.text(), WRITTEN);
    let mut locks: Vec<_> = read.locks().map(|(a, l)| (a.clone(), l.clone())).collect();
    for _ in 0..locks.len() {
        locks.rotate_left(1);
        let mut written = LockFile::new(Client::Terraform);
        for (address, lock) in &locks {
            set(&mut written, address, lock);
        }
        assert_eq!(written.text(), WRITTEN);
    }
    // And all at once, into files that hold some of them.
    for held in 0..locks.len() {
        let mut written = LockFile::new(Client::Terraform);
        set(&mut written, &locks[held].0, &locks[held].1);
        written.set(&locks.iter().cloned().collect()).unwrap();
        assert_eq!(written.text(), WRITTEN);
    }
}

/// Reading and changing take as long as the file is: were it the square of that, this would take an
/// hour.
#[test]
fn a_file_of_very_many_providers_is_read_and_changed() {
    const MANY: usize = 60_000;
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let locks = |version: &str, every: usize| -> BTreeMap<ProviderAddr, ProviderLock> {
            let numbers = (0..MANY).filter(|n| n % every == 0);
            numbers
                .map(|n| (address(&format!("a.b/c/p{n}")), lock(version, "", &["zh:00"])))
                .collect()
        };
        let mut file = LockFile::new(Client::OpenTofu);
        file.set(&locks("1.0.0", 2)).unwrap();
        file.set(&locks("1.1.0", 1)).unwrap();
        let read = LockFile::parse(file.text()).unwrap();
        assert!(locks("1.1.0", 1).iter().all(|(address, lock)| read.lock(address) == Some(lock)));
        done.send(read.locks().count()).unwrap();
    });
    let watchdog = std::time::Duration::from_secs(300);
    assert_eq!(ended.recv_timeout(watchdog), Ok(MANY));
}

#[test]
fn what_is_locked_just_so_stays_as_it_is() {
    let odd = WRITTEN.replace("    \"h1:TbW", "  \"h1:TbW").replace("version     =", "version=");
    let mut file = LockFile::parse(&odd).unwrap();
    for (address, lock) in LockFile::parse(WRITTEN).unwrap().locks() {
        set(&mut file, address, lock);
    }
    assert_eq!(file.text(), odd);
}

#[test]
fn a_change_leaves_all_other_bytes() {
    let text = "# mine\r\n\nmodule \"x\" {}\n\n# about b\nprovider \"a.b/c/b\" {\n  \
         version=\"1.0.0\"\n}\n# the end";
    let mut file = LockFile::parse(text).unwrap();
    set(&mut file, &address("a.b/c/b"), &lock("1.1.0", "~> 1.0", &["zh:00"]));
    let block = "provider \"a.b/c/b\" {\n  version     = \"1.1.0\"\n  constraints = \"~> 1.0\"\n  \
         hashes = [\n    \"zh:00\",\n  ]\n}";
    assert_eq!(
        file.text(),
        format!("# mine\r\n\nmodule \"x\" {{}}\n\n# about b\n{block}\n# the end")
    );
    set(&mut file, &address("a.b/c/c"), &lock("1.0.0", "", &[]));
    assert!(file.text().ends_with(&format!(
        "{block}\n\nprovider \"a.b/c/c\" {{\n  version = \"1.0.0\"\n}}\n# the end"
    )));
    set(&mut file, &address("a.b/c/a"), &lock("1.0.0", "", &[]));
    assert!(
        file.text()
            .starts_with("# mine\r\n\nprovider \"a.b/c/a\" {\n  version = \"1.0.0\"\n}\n\nmodule"),
        "{}",
        file.text()
    );
}

#[test]
fn comments_inside_a_block_are_kept() {
    let text = "provider \"a.b/c/b\" {\n  version = \"1.0.0\" # pinned, see #12\n  \
         hashes = [\n    # from the mirror\n    \"zh:11\",\n    \"h1:a//b=\" // last\n  \
         ] # so far\n}\n";
    let mut file = LockFile::parse(text).unwrap();
    let mut new = lock("1.0.0", ">= 1", &["zh:11", "h1:a//b=", "h1:0", "zh:22"]);
    set(&mut file, &address("a.b/c/b"), &new);
    assert_eq!(
        file.text(),
        "provider \"a.b/c/b\" {\n  version = \"1.0.0\" # pinned, see #12\n  \
         constraints = \">= 1.0.0\"\n  hashes = [\n    \"h1:0\",\n    \"zh:22\",\n    \
         # from the mirror\n    \"zh:11\",\n    \"h1:a//b=\" // last\n  ] # so far\n}\n"
    );
    assert_eq!(file.lock(&address("a.b/c/b")), Some(&new));
    new.hashes.pop_first();
    set(&mut file, &address("a.b/c/b"), &new);
    assert!(!file.text().contains("from the mirror") && file.text().contains("so far"));
    assert_eq!(file.lock(&address("a.b/c/b")), Some(&new));
    let mut file =
        LockFile::parse("provider \"a.b/c/b\" { # here\n  version = \"1.0.0\"\n}\n").unwrap();
    set(&mut file, &address("a.b/c/b"), &new);
    assert!(
        file.text().contains("{ # here\n") && file.lock(&address("a.b/c/b")) == Some(&new),
        "{}",
        file.text()
    );
}

#[test]
fn a_file_says_whose_it_is() {
    assert_eq!(LockFile::parse(WRITTEN).unwrap().client(), Some(Client::Terraform));
    assert_eq!(LockFile::new(Client::OpenTofu).client(), Some(Client::OpenTofu));
    assert_eq!(LockFile::parse("").unwrap().client(), None);
    let bare = "provider \"registry.terraform.io/a/b\" {\n version = \"1.0.0\"\n}\n";
    assert_eq!(LockFile::parse(bare).unwrap().client(), Some(Client::Terraform));
}

#[test]
fn what_the_clients_refuse_is_refused_with_its_line() {
    for (text, line, word) in [
        ("\nprovider \"aws\" {\n version = \"1.0.0\"\n}", 2, "HOST/NAMESPACE/TYPE"),
        ("provider \"a.b/C/d\" {\n version = \"1.0.0\"\n}", 1, "HOST/NAMESPACE/TYPE"),
        ("provider \"a.b/c/d\" {\n}", 1, "no version"),
        ("provider \"a.b/c/d\" {\n version = \"1.0\"\n}", 2, "a version"),
        ("provider \"a.b/c/d\" {\n version = \"1.0.0\"\n constraints = \"x\"\n}", 3, "constraint"),
        ("provider \"a.b/c/d\" {\n version = \"1.0.0\"\n hashes = [1]\n}", 3, "not a string"),
        ("provider \"a.b/c/d\" {\n version = \"1.0.0\"\n hashes = [\"h1\"]\n}", 3, "SCHEME:VALUE"),
        (
            "provider \"a.b/c/d\" {\n version = \"1.0.0\"\n}\nprovider \"a.b/c/d\" {\n \
             version = \"1.0.0\"\n}",
            4,
            "twice",
        ),
        ("<<<<<<< HEAD\n", 1, ""),
    ] {
        let error = LockFile::parse(text).unwrap_err();
        assert_eq!(error.line, Some(line), "{text}: {error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}
