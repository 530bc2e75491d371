//! Releases of the provider that really runs, `acme/tiny`.

use std::fs;
use std::path::Path;

use crate::support::docker_registry::DockerRegistry;
use crate::support::pack;
pub use crate::support::tiny::{BUILT, built};
use crate::{ORIGIN, here};

/// A platform that no machine of ours is.
pub const OTHER: &str = "plan9_mips";

/// The zips of version `version` as `(OS_ARCH, zip)`: for this machine, and for another one.
pub fn packages(version: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let program = built()?;
    Some(vec![
        (here(), pack::provider_zip("tiny", version, program)),
        (OTHER.to_owned(), pack::provider_zip("tiny", version, b"runs nowhere")),
    ])
}

/// Publishes versions of `acme/tiny`.
pub fn publish(registry: &DockerRegistry, versions: &[&str]) -> Option<()> {
    for version in versions {
        let packages = packages(version)?;
        let packages: Vec<_> =
            packages.iter().map(|(platform, zip)| (platform.as_str(), zip.clone())).collect();
        registry.push("mirror/acme/tiny").artifact(version, &pack::provider_of(&packages));
    }
    Some(())
}

/// Writes the same versions as a plain local mirror, packed or unpacked, into `dir`.
pub fn write_mirror(dir: &Path, versions: &[&str], packed: bool) -> Option<()> {
    let top = dir.join(ORIGIN).join("acme/tiny");
    for version in versions {
        for (platform, zip) in packages(version)? {
            if packed {
                fs::create_dir_all(&top).expect("a writable directory");
                let name = format!("terraform-provider-tiny_{version}_{platform}.zip");
                fs::write(top.join(name), zip).expect("a writable directory");
            } else {
                unpack(&zip, &top.join(version).join(platform));
            }
        }
    }
    Some(())
}

fn unpack(zip: &[u8], dir: &Path) {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip)).expect("a zip of ours");
    fs::create_dir_all(dir).expect("a writable directory");
    archive.extract(dir).expect("a writable directory");
}
