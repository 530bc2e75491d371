//! Logging in: what is sent, to whom, how often.

use super::hostile::{Behaviour, Login, Reply, all, path};
use super::*;
use tofufs::failure::{Failure, Refusal};
use tofufs::registry::origin::Origin;

const MANIFEST: &str = "/v2/acme/net/manifests/1.0";
const BASIC: Login = Login::Basic { user: "user", password: CANARY };

fn server(login: Option<Login>) -> Hostile {
    let server = Hostile::start();
    server.put_manifest("acme/net", Some("1.0"), INDEX, b"{}");
    server.login(login);
    server
}

fn bearer(server: &Hostile, user: Option<(&'static str, &'static str)>) {
    server
        .login(Some(Login::Bearer { realm: format!("http://{}/token?x=1", server.host()), user }));
}

fn client(server: &Hostile, credentials: Arc<Fixed>) -> Remote {
    remote_with(server, transport_with(Duration::from_secs(5)), credentials)
}

async fn get(remote: &Remote) -> Result<(), Refusal> {
    remote.manifest(&name("acme/net"), &by_tag("1.0")).await.map(drop)
}

/// registry quirk Q1; over plain HTTP because the host was declared to be spoken to so.
#[tokio::test]
async fn basic_is_sent_when_the_registry_asks_for_it() {
    let server = server(Some(BASIC));
    let remote = client(&server, credentials(user(CANARY)));
    get(&remote).await.unwrap();
    get(&remote).await.unwrap();
    assert_eq!(server.requests().len(), 3, "the second request knows what to send");
    assert_eq!(
        server.requests()[0].header("authorization"),
        None,
        "nothing is sent before it was asked for"
    );
}

#[tokio::test]
async fn a_token_is_fetched_for_our_own_scope_and_kept() {
    let server = server(None);
    bearer(&server, Some(("user", CANARY)));
    let remote = client(&server, credentials(user(CANARY)));
    get(&remote).await.unwrap();
    remote.tags(&name("acme/net")).await.unwrap();
    let tokens = server.requests_to("/token");
    assert_eq!(tokens.len(), 1);
    // R20: the challenge asked for another repository, and to push and delete there
    assert_eq!(tokens[0].path, "/token?x=1&service=hostile&scope=repository%3Aacme%2Fnet%3Apull");
    assert_eq!(server.requests_to(MANIFEST)[1].header("authorization"), Some("Bearer token-1"));
    remote.catalog().await.unwrap();
    assert!(server.requests_to("/token")[1].path.ends_with("scope=registry%3Acatalog%3A*"));
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_where_there_is_no_credential() {
    let server = server(None);
    bearer(&server, None);
    get(&remote(&server)).await.unwrap();
    assert_eq!(server.requests_to("/token")[0].header("authorization"), None);
    server.behave();
    bearer(&server, Some(("user", CANARY)));
    server.revoke_tokens();
    refused(
        get(&remote(&server)).await,
        Failure::Denied,
        &["/acme/net:1.0", "no credential", "log in"],
    );
}

#[tokio::test]
async fn many_requests_at_once_need_one_token() {
    let server = server(None);
    bearer(&server, None);
    server.rule(path("/token"), Behaviour::Slow { piece: 4096, pause: Duration::from_millis(200) });
    let remote = remote(&server);
    let all = futures_util::future::join_all((0..64).map(|_| get(&remote))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(server.requests_to("/token").len(), 1);
}

/// A call may be dropped at any await; who comes next does not wait for what nobody drives.
#[tokio::test]
async fn a_login_that_was_dropped_begins_anew() {
    let server = server(None);
    bearer(&server, None);
    server.script(path("/token"), [Behaviour::Silence]);
    let remote = remote(&server);
    let asked = async {
        while server.requests_to("/token").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        result = get(&remote) => panic!("{result:?}"),
        () = asked => {}
    }
    get(&remote).await.unwrap();
    assert_eq!(server.requests_to("/token").len(), 2);
}

/// registry quirk Q3
#[tokio::test]
async fn a_refresh_token_is_exchanged_by_post() {
    let server = server(None);
    bearer(&server, Some(("user", CANARY)));
    let refresh =
        Credential::Tokens { access: None, refresh: Some(Secret::new(CANARY.to_owned())) };
    get(&client(&server, credentials(refresh))).await.unwrap();
    let request = &server.requests_to("/token")[0];
    assert_eq!((&*request.method, &*request.path), ("POST", "/token?x=1"));
    let form = String::from_utf8(request.body.clone()).unwrap();
    for part in [
        "grant_type=refresh_token",
        "scope=repository%3Aacme%2Fnet%3Apull",
        "service=hostile",
        "client_id=",
    ] {
        assert!(form.contains(part), "{form}");
    }
}

#[tokio::test]
async fn an_access_token_is_used_as_it_is() {
    let server = server(None);
    bearer(&server, None);
    let access = Credential::Tokens { access: Some(Secret::new(CANARY.to_owned())), refresh: None };
    refused(get(&client(&server, credentials(access))).await, Failure::Denied, &["401"]);
    assert!(server.requests_to("/token").is_empty());
    assert_eq!(server.requests()[1].header("authorization"), Some(&*format!("Bearer {CANARY}")));
}

/// R21
#[tokio::test]
async fn a_registry_that_refuses_for_ever_is_logged_in_to_twice() {
    let server = server(Some(BASIC));
    let source = credentials(user(CANARY));
    server.rule(
        all(),
        Behaviour::Answer(
            Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", "Basic realm=x"),
        ),
    );
    refused(
        get(&client(&server, source.clone())).await,
        Failure::Denied,
        &["401", "credential from the test"],
    );
    assert_eq!(server.requests().len(), 3);
    assert_eq!(
        *source.asked.lock().unwrap(),
        [false, true],
        "the helper runs again after a refusal"
    );
}

/// R21: an expired token is a 401.
#[tokio::test]
async fn an_expired_token_is_renewed_in_the_same_request() {
    let server = server(None);
    bearer(&server, None);
    let remote = remote(&server);
    get(&remote).await.unwrap();
    server.revoke_tokens();
    get(&remote).await.unwrap();
    assert_eq!(server.requests_to("/token").len(), 2);
}

/// registry quirk Q4: an expired token is a 403 with a text body.
#[tokio::test]
async fn an_expired_token_that_is_answered_by_403_is_renewed_once() {
    let server = server(Some(BASIC));
    let source = credentials(user(CANARY));
    let remote = client(&server, source.clone());
    get(&remote).await.unwrap();
    let expired = || {
        Behaviour::Answer(Reply::new(403, "text/plain", "Your authorization token has expired."))
    };
    server.script(path(MANIFEST), [expired()]);
    get(&remote).await.unwrap();
    assert_eq!(*source.asked.lock().unwrap(), [false, true]);
    server.script(path(MANIFEST), [expired(), expired()]);
    refused(
        get(&remote).await,
        Failure::Denied,
        &["403", "has expired", "credential from the test"],
    );
    assert_eq!(server.requests().len(), 2 + 2 + 2);
}

/// registry quirk Q4: what makes a 403 look like an expired token is either of two things.
#[tokio::test]
async fn a_403_is_a_refusal_unless_the_token_worked_before_or_the_answer_is_no_registrys() {
    let json = || Behaviour::Answer(Reply::error(403, "DENIED"));
    let text = || Behaviour::Answer(Reply::new(403, "text/plain", "expired"));
    for (worked_before, answer, logins) in
        [(false, json(), 1), (true, json(), 2), (false, text(), 2), (true, text(), 2)]
    {
        let server = server(Some(BASIC));
        let source = credentials(user(CANARY));
        let remote = client(&server, source.clone());
        if !worked_before {
            let missing = Behaviour::Answer(Reply::error(404, "MANIFEST_UNKNOWN"));
            server.script(path(MANIFEST), [Behaviour::Honest, missing]);
        }
        assert_eq!(get(&remote).await.is_ok(), worked_before);
        server.script(path(MANIFEST), [answer]);
        match (get(&remote).await, logins) {
            (result, 1) => {
                refused(result, Failure::Denied, &["403", "DENIED", "credential from the test"])
            }
            (result, _) => result.unwrap(),
        }
        assert_eq!(source.asked.lock().unwrap().len(), logins, "worked before: {worked_before}");
    }
}

#[tokio::test]
async fn a_refresh_token_is_used_once_the_access_token_beside_it_is_refused() {
    let server = server(None);
    bearer(&server, Some(("user", CANARY)));
    let secret = |text: &str| Some(Secret::new(text.to_owned()));
    let both = Credential::Tokens { access: secret("old"), refresh: secret(CANARY) };
    get(&client(&server, credentials(both))).await.unwrap();
    let shown: Vec<_> = server
        .requests_to(MANIFEST)
        .iter()
        .map(|seen| seen.header("authorization").map(str::to_owned))
        .collect();
    assert_eq!(shown, [None, Some("Bearer old".to_owned()), Some("Bearer token-1".to_owned())]);
    assert_eq!(server.requests_to("/token").len(), 1);
}

/// O03: a token service that fails has refused nobody.
#[tokio::test]
async fn a_token_service_that_fails_is_an_outage_and_no_denial() {
    for status in [429, 500, 503] {
        let server = server(None);
        bearer(&server, None);
        let out_of_order = Behaviour::Answer(Reply::new(status, "text/plain", "out of order"));
        server.script(path("/token"), [out_of_order.clone()]);
        get(&remote(&server)).await.unwrap();
        assert_eq!(server.requests_to("/token").len(), 2, "another try may help");
        server.revoke_tokens();
        server.rule(path("/token"), out_of_order);
        let words = [&*status.to_string(), "out of order"];
        refused(get(&remote(&server)).await, Failure::TimedOut, &words);
    }
}

#[tokio::test]
async fn a_new_credential_of_the_source_is_used_after_a_refusal() {
    let server = server(Some(BASIC));
    let source = Fixed { first: Some(user("old")), again: Some(user(CANARY)), ..Fixed::default() };
    get(&client(&server, Arc::new(source))).await.unwrap();
}

/// R17, R18
#[tokio::test]
async fn a_foreign_token_service_gets_no_credential() {
    let server = server(None);
    let remote = client(&server, credentials(user(CANARY)));
    for realm in [
        "https://evil.example/token",
        "http://evil.example/token",
        "https://10.0.0.1/",
        "https://u:p@127.0.0.1/",
    ] {
        server.login(Some(Login::Bearer { realm: realm.to_owned(), user: None }));
        let result = get(&remote).await;
        let hint = format!("--token-realm {}=", server.host());
        let hints: &[&str] = if realm.contains('@') {
            &["token service"]
        } else {
            &["no credential was sent", &hint]
        };
        refused(result, Failure::Denied, hints);
    }
}

#[tokio::test]
async fn a_token_service_that_the_user_named_gets_the_credential() {
    let (server, service) = (server(None), Hostile::start());
    // not this machine by its name, so that only the option allows it
    let realm = format!("http://0.0.0.0:{}/token", service.addr().port());
    server.login(Some(Login::Bearer { realm: realm.clone(), user: None }));
    service.rule(
        all(),
        Behaviour::Answer(Reply::new(
            200,
            "application/json",
            format!(r#"{{"access_token":"{CANARY}"}}"#),
        )),
    );
    let host: Host = server.host().parse().unwrap();
    let token_realm: Origin = realm.trim_end_matches("/token").parse().unwrap();
    let options = |token_realm| RemoteOptions {
        host: host.clone(),
        plain_http: true,
        token_realm,
        credentials: credentials(user(CANARY)),
    };
    let transport = transport_with(Duration::from_secs(5));
    refused(
        get(&Remote::new(transport.clone(), options(None)).unwrap()).await,
        Failure::Denied,
        &["--token-realm"],
    );
    assert!(service.requests().is_empty());
    let result = get(&Remote::new(transport, options(Some(token_realm))).unwrap()).await;
    refused(result, Failure::Denied, &["401"]);
    assert!(service.requests()[0].header("authorization").is_some());
    let sent = server
        .requests()
        .iter()
        .filter_map(|r| r.header("authorization").map(str::to_owned))
        .collect::<Vec<_>>();
    assert_eq!(sent[0], format!("Bearer {CANARY}"));
}

/// R19, R22
#[tokio::test]
async fn what_a_token_service_may_answer_is_bounded() {
    let server = server(None);
    bearer(&server, None);
    let remote = remote(&server);
    let answer = |body: &str| Reply::new(200, "application/json", body);
    let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(1 << 20));
    for reply in [
        Reply::redirect(302, &format!("http://{}/elsewhere", server.host())),
        answer("no"),
        answer("{}"),
        answer(r#"{"token":""}"#),
        answer(r#"{"token":"a\r\nX: y"}"#),
        answer(&long),
    ] {
        server.rule(path("/token"), Behaviour::Answer(reply));
        refused(get(&remote).await, Failure::Protocol, &["/acme/net:1.0"]);
    }
    assert!(server.requests_to("/elsewhere").is_empty());
}

/// Neither passwords nor tokens nor a store's signed address reach the log, at any level.
#[tokio::test]
async fn no_secret_is_logged() {
    let (server, store) = (server(None), Hostile::start());
    bearer(&server, Some(("user", CANARY)));
    let content = bytes(10);
    let digest = store.put_blob(&content);
    let location =
        format!("http://{}/v2/acme/net/blobs/{digest}?X-Signature={CANARY}", store.host());
    server.rule(
        |seen| seen.path.contains("/blobs/") && seen.header("authorization").is_some(),
        Behaviour::Answer(Reply::redirect(307, &location)),
    );
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || Lines(lines.clone()))
        .finish();
    // for the whole process: what the other tests log meanwhile must hold no secret either
    tracing::subscriber::set_global_default(subscriber).unwrap();
    fetch(&client(&server, credentials(user(CANARY))), &descriptor(&content)).await.1.unwrap();
    let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/acme/net/blobs/sha256:") && text.contains("/token"), "{text}");
    for secret in [CANARY, "token-1", "Basic ", "Bearer "] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
