//! Version ranges as names: symbolic links to the newest tag that matches.

use std::fs;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use crate::support::hostile::Hostile;
use crate::support::mount::{Mount, Options, finish};
use crate::support::{program, skip};
use crate::{errno, main_tf, module, names, refresh};

fn mounted(server: &Hostile, arguments: &[&str]) -> Option<Mount> {
    let host = server.host();
    Mount::start(&[&host], Options::new().args(["--plain-http", &host]).args(arguments))
}

#[test]
fn a_range_leads_to_the_newest_tag_that_matches() {
    let server = Hostile::start();
    for version in ["1.2.0", "1.2.3", "1.4.0", "2.0.0-rc1", "latest"] {
        server.publish("acme/net", version, &module(version));
    }
    let Some(mount) = mounted(&server, &["--tag-ttl", "1h"]) else { return };
    let net = format!("{}/acme/net", server.host());
    for (name, target) in [
        ("/~>1.2", "1.4.0"),
        ("/>= 1.2, < 1.4", "1.2.3"),
        ("/1.2.x", "1.2.3"),
        ("/!=1.4.0", "1.2.3"),
        ("/=2.0.0-rc1", "2.0.0-rc1"),
        (":~>1.2", "net:1.4.0"),
        (":1.2.x", "net:1.2.3"),
    ] {
        let range = format!("{net}{name}");
        let link = fs::read_link(mount.join(&range)).unwrap_or_else(|e| panic!("{range}: {e}"));
        assert_eq!(link.to_str(), Some(target), "{range}");
        assert_eq!(main_tf(&mount, &range), target.trim_start_matches("net:"));
    }
    for name in ["/~>3.0", "/3.x", "/~>", "/=>1", ":~>3.0"] {
        let outcome = fs::symlink_metadata(mount.join(format!("{net}{name}")));
        assert_eq!(errno(outcome), Some(Errno::NOENT), "{name}");
    }
    let listed = names(&mount.join(&net));
    assert_eq!(listed, ["1.2.0", "1.2.3", "1.4.0", "2.0.0-rc1", "latest"], "none is listed");
    assert_eq!(server.requests_to("/v2/acme/net/tags/list").len(), 1, "one list for all");

    server.publish("acme/net", "1.5.0", &module("1.5.0"));
    assert_eq!(main_tf(&mount, &format!("{net}/~>1.2")), "1.4.0", "the list is believed so long");
    refresh(&mount, &net);
    assert_eq!(main_tf(&mount, &format!("{net}/~>1.2")), "1.5.0");
}

#[test]
fn no_range_is_absent_while_the_list_cannot_be_had() {
    let server = Hostile::start();
    server.publish("acme/net", "1.2.0", &module("1.2.0"));
    let Some(mount) = mounted(&server, &["--deadline", "1s"]) else { return };
    let net = format!("{}/acme/net", server.host());
    for (status, wanted) in [(403, Errno::ACCESS), (503, Errno::TIMEDOUT)] {
        crate::reasons::refuse(&server, "/v2/acme/net/tags/list", status);
        let outcome = fs::read_link(mount.join(format!("{net}/~>1.2")));
        assert_eq!(errno(outcome), Some(wanted), "{status}\n{}", mount.log());
        server.behave();
        refresh(&mount, &net);
    }
    assert_eq!(main_tf(&mount, &format!("{net}/~>1.2")), "1.2.0");
}

/// A root module whose `source` is a range takes what was published since.
#[test]
fn a_module_source_may_be_a_range() {
    let Some(terraform) = program("tofu").or_else(|| program("terraform")) else {
        return skip("neither tofu nor terraform is on PATH");
    };
    let server = Hostile::start();
    server.publish("acme/net", "1.2.0", &module("output \"v\" { value = \"1.2.0\" }\n"));
    let Some(mount) = mounted(&server, &["--tag-ttl", "1h"]) else { return };
    let net = format!("{}/acme/net", server.host());
    let work = tempfile::tempdir().unwrap();
    let source = mount.join(format!("{net}/~>1.2"));
    let main = format!(
        "module \"net\" {{\n  source = \"{}\"\n}}\noutput \"v\" {{ value = module.net.v }}\n",
        source.display()
    );
    fs::write(work.path().join("main.tf"), main).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&terraform);
        command.args(arguments).current_dir(work.path()).stdin(Stdio::null());
        let output = finish(command);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", mount.log());
    };
    let applied = || {
        run(&["init", "-upgrade", "-input=false"]);
        run(&["apply", "-auto-approve", "-input=false"]);
        let state = fs::read_to_string(work.path().join("terraform.tfstate")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        state["outputs"]["v"]["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(applied(), "1.2.0");
    server.publish("acme/net", "1.3.0", &module("output \"v\" { value = \"1.3.0\" }\n"));
    refresh(&mount, &net);
    assert_eq!(applied(), "1.3.0");
}
