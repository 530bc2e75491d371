//! Logging in and being led elsewhere: who gets the credential, and what a refusal says.

use super::support::hostile::{Behaviour, Login, Reply, all};
use super::*;

/// A password that must never show up where it does not belong.
const CANARY: &str = "canary-77c1";

/// A mount of `server` that knows a user's password for it.
fn bed(server: &Hostile) -> Option<(Bed, tempfile::NamedTempFile)> {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("user:{CANARY}"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), json!({ "auths": { server.host(): { "auth": auth } } }).to_string())
        .unwrap();
    let options = Options::new()
        .args(["--plain-http", &server.host(), "--deadline", "10s", "-vv"])
        .env("REGISTRY_AUTH_FILE", file.path().display());
    Some((Bed { mount: Mount::start(&[server.host()], options)? }, file))
}

/// R17, R18
#[test]
fn a_foreign_token_service_gets_nothing_and_the_refusal_says_how_to_allow_it() {
    let (server, foreign) = (Hostile::start(), Hostile::start());
    put_small(&server, "net");
    // This machine, but by a name that is not taken for it.
    let realm = format!("http://0.0.0.0:{}", foreign.addr().port());
    server.login(Some(Login::Bearer { realm: format!("{realm}/token"), user: None }));
    let Some((bed, _file)) = bed(&server) else { return };
    let reference = format!("{}/net:1.0.0", server.host());
    assert_eq!(errno_of(fs::metadata(bed.mount.join(&reference)).err()), Some(Errno::ACCESS));
    let hint = format!("--token-realm {}={realm}", server.host());
    bed.reported(&reference, &["no credential was sent", &hint]);
    assert_eq!(errno_of(fs::read_dir(bed.path(&reference)).err()), Some(Errno::ACCESS));
    assert!(foreign.requests().is_empty());
    assert!(!bed.mount.log().contains(CANARY) && !bed.errors().join("").contains(CANARY));
}

/// R21
#[test]
fn a_registry_that_refuses_for_ever_is_logged_in_to_twice_at_most() {
    let server = Hostile::start();
    server.login(Some(Login::Bearer {
        realm: format!("http://{}/token", server.host()),
        user: Some(("user", CANARY)),
    }));
    let (_, package) = put_small(&server, "net");
    let challenge = format!("Bearer realm=\"http://{}/token\"", server.host());
    let refusal = Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge);
    server.rule(blobs_of("net"), Behaviour::Answer(refusal));
    let Some((bed, file)) = bed(&server) else { return };
    let source = file.path().display().to_string();
    bed.refused(
        &format!("{}/net:1.0.0", server.host()),
        Errno::ACCESS,
        &["401", &source, &package.to_string()],
    );
    assert!(blob_requests(&server, "net") <= 3, "{}", blob_requests(&server, "net"));
    assert!(!bed.mount.log().contains(CANARY));
}

/// R21: a token that expires in mid-download is replaced, and the transfer goes on where it was.
#[test]
fn a_token_that_expires_in_mid_download_is_replaced() {
    let server = Hostile::start();
    server.login(Some(Login::Bearer {
        realm: format!("http://{}/token", server.host()),
        user: Some(("user", CANARY)),
    }));
    let (content, _) = put_small(&server, "net");
    let challenge = format!("Bearer realm=\"http://{}/token\"", server.host());
    let expired = Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge);
    server.script(
        blobs_of("net"),
        [Behaviour::Cut { after: 400, reset: false }, Behaviour::Answer(expired)],
    );
    let Some((bed, _file)) = bed(&server) else { return };
    assert_eq!(bed.main_tf(&format!("{}/net:1.0.0", server.host())), content);
    let requests = server.requests_to("/v2/net/blobs/");
    let last = requests.last().unwrap();
    assert!(last.header("range").is_some_and(|range| range.starts_with("bytes=400-")), "{last:?}");
    assert_ne!(last.header("authorization"), requests[0].header("authorization"));
}

/// R11, R12: another port is another origin.
#[test]
fn content_behind_a_redirect_is_served_and_the_credential_stays_home() {
    let (server, store) = (Hostile::start(), Hostile::start());
    server.login(Some(Login::Basic { user: "user", password: CANARY }));
    let (content, package) = put_small(&server, "net");
    put_small(&store, "net");
    let location = format!("http://{}/v2/net/blobs/{package}?signature={CANARY}", store.host());
    server.rule(
        |seen| blobs_of("net")(seen) && seen.header("authorization").is_some(),
        Behaviour::Answer(Reply::redirect(307, &location)),
    );
    let Some((bed, _file)) = bed(&server) else { return };
    assert_eq!(bed.main_tf(&format!("{}/net:1.0.0", server.host())), content);
    let seen = store.requests();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].header("authorization").is_none() && seen[0].header("cookie").is_none());
    assert!(!bed.mount.log().contains(CANARY));
}

/// R48: what is denied is there and says why.
#[test]
fn a_repository_that_is_denied_is_no_absence() {
    let server = Hostile::start();
    put_small(&server, "net");
    server.rule(all(), Behaviour::Answer(Reply::error(403, "DENIED")));
    let Some((bed, _file)) = bed(&server) else { return };
    let reference = format!("{}/net:1.0.0", server.host());
    assert_eq!(errno_of(fs::metadata(bed.mount.join(&reference)).err()), Some(Errno::ACCESS));
    bed.reported(&reference, &["403"]);
    let listed = fs::read_dir(bed.mount.join(format!("{}/net", server.host())));
    let listed = listed.and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    assert_eq!(errno_of(listed.err()), Some(Errno::ACCESS));
    assert_eq!(errno_of_reading(&bed.path(&reference)), Some(Errno::ACCESS));
}
