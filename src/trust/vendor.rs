//! Vendors' signatures: a `SHA256SUMS` that an OpenPGP key has signed vouches for the zip of one
//! platform, under the name that the zip has there.

use super::verdict::Asked;
use crate::artifact::ReleaseSums;
use crate::digest::Digest;
use crate::moment::Moment;
use crate::name::{Platform, Repo, Version, ZipName};
use crate::openpgp::{self, Certificate};

/// The largest `SHA256SUMS`, and the largest signature of one, in bytes.
pub const SUMS_MAX: u64 = 1 << 20;

/// Sums of a vendor's files with a signature, which nobody has checked yet.
#[derive(Clone, Debug)]
pub struct VendorSums {
    pub sums: Vec<u8>,
    pub signature: Vec<u8>,
}

/// The package for which sums may vouch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VendorPackage {
    pub platform: Platform,
    /// Of its zip.
    pub zip: Digest,
}

/// Whether `title` is that of sums.
pub fn is_sums(title: &str) -> bool {
    title.ends_with("_SHA256SUMS")
}

/// Whether `title` is that of a signature of the sums that are called `sums`.
pub fn is_signature(title: &str, sums: &str) -> bool {
    title.strip_prefix(sums).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".sig"))
}

impl VendorSums {
    /// Whether a key of `certificates` vouches for `package` as what was asked for.
    pub(super) fn vouch(
        &self,
        package: &VendorPackage,
        asked: &Asked,
        certificates: &[Certificate],
        now: Moment,
    ) -> Result<(), String> {
        let signer = openpgp::verify(&self.sums, &self.signature, certificates, now.seconds())
            .map_err(|e| format!("SHA256SUMS whose signature does not hold: {e}"))?;
        if signer.was_expired {
            return Err(format!(
                "SHA256SUMS signed by the key {} after it expired",
                signer.primary
            ));
        }
        let sums = ReleaseSums::parse(self.sums.clone())?;
        let Some(name) = sums.only_name(package.zip) else {
            return Err("SHA256SUMS without exactly one line for its zip".to_owned());
        };
        let says = name.parse::<ZipName>().ok().filter(|says| says.to_string() == name);
        let Some(says) = says.filter(|says| says.platform == package.platform) else {
            return Err(format!("SHA256SUMS that calls its zip {name}"));
        };
        let is_version = |tag| Version::of_tag(tag).is_some_and(|version| version == says.version);
        if asked.tag.as_ref().is_some_and(|tag| !is_version(tag)) {
            return Err(format!("SHA256SUMS of the version {}", says.version));
        }
        if !is_named_after(&asked.repo, &says.kind) {
            return Err(format!("SHA256SUMS of the provider {}", says.kind));
        }
        Ok(())
    }
}

/// Whether a repository is called as if it held the releases of the provider `kind`: a component is
/// `kind`, or ends in `-kind`. Else one provider of a vendor could take the place of another.
fn is_named_after(repo: &Repo, kind: &str) -> bool {
    repo.name.components().any(|component| {
        component
            .strip_suffix(kind)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', '_', '.']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_called_after_its_provider() {
        let is = |name: &str, kind: &str| {
            let repo = Repo { host: "r.example".parse().unwrap(), name: name.parse().unwrap() };
            is_named_after(&repo, kind)
        };
        for name in ["hashicorp/aws", "acme/terraform-provider-aws", "acme/hashicorp-aws", "aws/x"]
        {
            assert!(is(name, "aws"), "{name}");
            assert!(!is(name, "google") && !is(name, "ws"), "{name}");
        }
        assert!(is("hashicorp/google-beta", "google-beta"));
        assert!(!is("hashicorp/google-beta", "google"));
    }

    #[test]
    fn sums_and_their_signatures_go_by_their_titles() {
        let sums = "terraform-provider-aws_5.0.0_SHA256SUMS";
        assert!(is_sums(sums) && !is_sums(&format!("{sums}.sig")));
        assert!(is_signature(&format!("{sums}.sig"), sums));
        assert!(is_signature(&format!("{sums}.72D7468F.sig"), sums));
        for other in ["x_SHA256SUMS.sig", sums, "terraform-provider-aws_5.0.0_SHA256SUMSx.sig"] {
            assert!(!is_signature(other, sums), "{other}");
        }
    }
}
