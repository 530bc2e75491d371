//! The vectors of sigstore-conformance (`tests/data/sigstore-conformance`), through what a policy
//! decides by. What they sign by digest instead of as a statement is refused, whatever they expect.

use tofufs::moment::Moment;
use tofufs::trust::{Asked, Policies, Policy, ReleaseDates};

use crate::*;

const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";

struct Vector {
    name: String,
    dir: PathBuf,
    bundle: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sigstore-conformance");
    let mut found = Vec::new();
    for entry in fs::read_dir(all).unwrap().flatten() {
        if let Ok(bundle) = fs::read(entry.path().join("bundle.sigstore.json")) {
            let name = entry.file_name().into_string().unwrap();
            found.push(Vector { name, dir: entry.path(), bundle });
        }
    }
    found
}

impl Vector {
    fn text(&self, name: &str, default: &str) -> String {
        let text = fs::read_to_string(self.dir.join(name)).unwrap_or_else(|_| default.to_owned());
        text.trim().to_owned()
    }

    fn digest(&self) -> Digest {
        let artifact = fs::read(self.dir.join("artifact"));
        Digest::of(&artifact.or_else(|_| fs::read(self.dir.join("../a.txt"))).unwrap())
    }

    fn is_good(&self) -> bool {
        !self.name.ends_with("_fail")
    }

    /// Whether a policy that names what the vector names admits it; else why not.
    fn verdict(&self) -> Result<(), String> {
        let signed = SignedStatement::read_bundle(&self.bundle)?;
        let attributes = if self.dir.join("key.pub").exists() {
            "keys = [\"key.pub\"]".to_owned()
        } else {
            let issuer = self.text("issuer", "https://token.actions.githubusercontent.com");
            let identity = self.text("identity", IDENTITY);
            format!("issuer = {issuer:?}\n  identity = {identity:?}")
        };
        let text = format!(
            "default = \"refuse\"\nsigner \"it\" {{\n  trusted_root = \"trusted_root.json\"\n  \
             predicate = {:?}\n  {attributes}\n}}\n\
             scope \"r.example\" {{\n  signed_by = [\"it\"]\n}}\n",
            signed.statement.predicate_type,
        );
        let public = sigstore_verify::trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;
        let mut read = |name: &str| Ok(self.text(name, public));
        let policy = Policy::parse("policy.hcl", &text, Moment::now(), &mut read)
            .map_err(|e| e.to_string())?;
        let policies = Policies(vec![policy.into()]);
        let repo = Repo { host: "r.example".parse().unwrap(), name: "x".parse().unwrap() };
        let asked = Asked { repo, tag: None, digest: self.digest(), platform: None };
        let mut judgement = policies.judge(&asked, ReleaseDates::UNKNOWN);
        judgement.add(Ok(signed));
        judgement.admission().map(drop).ok_or_else(|| judgement.refusal().rule)
    }
}

/// S29, S30
#[test]
fn statements_of_the_conformance_suite_count_or_do_not_as_it_says() {
    let (mut statements, mut good) = (0, 0);
    let vectors = vectors();
    assert_eq!(vectors.len(), 70);
    for vector in &vectors {
        let is_statement = String::from_utf8_lossy(&vector.bundle).contains("\"dsseEnvelope\"");
        let verdict = vector.verdict();
        assert_eq!(
            verdict.is_ok(),
            vector.is_good() && is_statement,
            "{}: {verdict:?}",
            vector.name
        );
        statements += usize::from(is_statement);
        good += usize::from(verdict.is_ok());
        eprintln!("{}: {}", vector.name, verdict.err().unwrap_or_default());
    }
    assert_eq!((statements, good), (14, 3));
}
