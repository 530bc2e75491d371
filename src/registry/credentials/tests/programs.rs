//! The programs that are asked for credentials (`docker-credential-NAME`).

use super::*;

// L14
#[tokio::test]
async fn a_helper_is_asked_by_get_with_the_url_and_nothing_else() {
    let place = Place::new();
    let dir = place.0.path().display().to_string();
    let ours = std::fs::File::open(place.file("ours", "")).unwrap();
    let script = format!(
        "cat > {dir}/asked; echo \"$#:$*\" > {dir}/args; ls -l /proc/$$/fd > {dir}/fds; {KNOWS}"
    );
    let credentials = place.with_program(place.program("h", &script));
    let found = credentials.find(&host("r.io:5000"), None, false).await.unwrap().unwrap();
    assert_eq!(found.credential, basic("helped"));
    assert!(found.source.contains("docker-credential-h"), "{}", found.source);
    let read = |name: &str| std::fs::read_to_string(place.0.path().join(name)).unwrap();
    assert_eq!(read("asked"), "https://r.io:5000");
    assert_eq!(read("args"), "1:get\n");
    assert!(
        read("fds").contains(" 0 -> pipe:") && !read("fds").contains("/ours"),
        "{}",
        read("fds")
    );
    drop(ours);
}

// L14
#[tokio::test]
async fn a_helper_that_misbehaves_is_contained() {
    let place = Place::new();
    let cases = [
        ("garbage", "echo canary-secret", "JSON"),
        ("fails", "echo canary-secret; echo canary-secret >&2; exit 3", "failed"),
        ("huge", "head -c 1048576 /dev/zero", "more than 65536"),
        ("hangs", "sleep 1000", "did not answer"),
        ("holds", "exec >/dev/null; sleep 1000", "did not answer"),
    ];
    for (name, script, reason) in cases {
        let mut config = place.config();
        config.default_program = Some(place.program(name, script));
        if reason.starts_with("did not") {
            config.program_limit = Some(Duration::from_millis(300));
        }
        let error = Credentials::new(config)
            .find(&host("r.io"), None, false)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason) && !error.contains("canary"), "{name}: {error}");
    }
    let error = place
        .with_program("absent".parse().unwrap())
        .find(&host("r.io"), None, false)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no such program"), "{error}");
    for name in ["", "a/b", "../x", "a\0b"] {
        assert!(name.parse::<Program>().is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn a_relative_directory_of_path_is_not_searched() {
    let place = Place::new();
    let program = place.program("h", r#"echo '{"Username":"u","Secret":"s"}'"#);
    let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    let relative = up.join(place.0.path().strip_prefix("/").unwrap());
    assert!(relative.join("docker-credential-h").exists());
    let find = async |search_path: &std::path::Path| {
        let search_path = format!(".:::{}", search_path.display()).into();
        let config = CredentialsConfig {
            search_path,
            default_program: Some(program.clone()),
            ..place.config()
        };
        Credentials::new(config).find(&host("r.io"), None, false).await
    };
    let error = find(&relative).await.unwrap_err().to_string();
    assert!(error.contains("no such program"), "{error}");
    assert!(find(place.0.path()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_helper_that_hangs_is_ended_with_all_that_it_started() {
    let place = Place::new();
    let started = place.0.path().join("started");
    let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", started.display());
    let program_limit = Some(Duration::from_millis(500));
    let config = CredentialsConfig {
        default_program: Some(place.program("h", &script)),
        program_limit,
        ..place.config()
    };
    Credentials::new(config).find(&host("r.io"), None, false).await.unwrap_err();
    let below = std::fs::read_to_string(started).unwrap();
    let is_there = || {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", below.trim())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    };
    for _ in 0..500 {
        if !is_there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("process {} still runs", below.trim());
}

#[tokio::test]
async fn answers_without_a_credential_and_with_a_token_are_understood() {
    let place = Place::new();
    let cases = [
        ("out", "echo 'credentials not found in native keychain'; exit 1", ""),
        ("err", "echo 'Credentials not found' >&2; exit 1", ""),
        ("blank", r#"echo '{"ServerURL":"","Username":"","Secret":""}'"#, ""),
        ("token", r#"echo '{"Username":"<token>","Secret":"t"}'"#, "token:t"),
        ("trailing", r#"echo '{"Username":"u","Secret":"s"} and more'"#, "u"),
    ];
    for (name, script, who) in cases {
        let credentials = place.with_program(place.program(name, script));
        assert_eq!(user(&credentials, "r.io", "x").await.unwrap_or_default(), who, "{name}");
    }
}

#[tokio::test]
async fn a_helper_runs_once_until_its_answer_is_refused() {
    let place = Place::new();
    let dir = place.0.path().display().to_string();
    let credentials =
        place.with_program(place.program("h", &format!("echo x >> {dir}/runs; {KNOWS}")));
    let at = host("r.io");
    let below = repo("x");
    let (a, b) = tokio::join!(
        credentials.find(&at, None, false),
        credentials.find(&at, Some(&below), false)
    );
    assert!(a.unwrap().is_some() && b.unwrap().is_some());
    assert_eq!(place.runs(), 1);
    for again in [true, true, false, true] {
        assert!(credentials.find(&at, None, again).await.unwrap().is_some());
        assert_eq!(place.runs(), 2, "what is refused time and again does not run time and again");
    }
    assert!(credentials.find(&host("other.io"), None, false).await.unwrap().is_some());
    assert_eq!(place.runs(), 3);
    credentials.forget();
    assert!(credentials.find(&at, None, false).await.unwrap().is_some());
    assert_eq!(place.runs(), 4);
}

/// Each component of a path asks for a login: one that hangs costs its time limit once.
#[tokio::test]
async fn a_helper_that_fails_or_hangs_is_run_once_until_the_user_says_so() {
    for script in ["exit 1", "exec sleep 1000", "echo canary"] {
        let place = Place::new();
        let dir = place.0.path().display().to_string();
        let mut config = place.config();
        config.default_program =
            Some(place.program("h", &format!("echo x >> {dir}/runs; {script}")));
        config.program_limit = Some(Duration::from_millis(500));
        let credentials = Credentials::new(config);
        for again in [false, false, true, false] {
            let error = credentials.find(&host("r.io"), None, again).await.unwrap_err().to_string();
            assert!(error.contains("tofufs refresh"), "{error}");
        }
        assert_eq!(place.runs(), 1, "{script}");
        place.program("h", KNOWS);
        credentials.forget();
        assert_eq!(user(&credentials, "r.io", "x").await.unwrap(), "helped");
    }
}

/// As helpers do that start an agent.
#[tokio::test]
async fn a_helper_that_has_answered_is_not_waited_for_because_of_what_it_left_behind() {
    let place = Place::new();
    let left = place.0.path().join("left");
    let mut config = place.config();
    config.default_program =
        Some(place.program("h", &format!("sleep 1000 & echo $! > {}; {KNOWS}", left.display())));
    let credentials = Credentials::new(config);
    assert_eq!(user(&credentials, "r.io", "x").await.as_deref(), Some("helped"));
    let below: i32 = std::fs::read_to_string(left).unwrap().trim().parse().unwrap();
    let below = rustix::process::Pid::from_raw(below).unwrap();
    rustix::process::kill_process(below, rustix::process::Signal::KILL).expect("it runs as before");
}
