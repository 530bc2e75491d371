//! A scripted registry on 127.0.0.1 that speaks raw HTTP/1.1, so that it can lie at that level.
//!
//! Without rules it is an honest registry: tags in pages, manifests, blobs with ranges, uploads,
//! and, where it was told to ask for it, Basic or Bearer login with a token service at `/token`.
//! Each request that arrives is kept. A [`Behaviour`] takes the place of the honest answer for the
//! requests that its rule matches.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tofufs::digest::Digest;

use super::pack::Artifact;

// By their paths, since this file is a module of two programs at different places.
#[path = "hostile/answers.rs"]
mod answers;
#[path = "hostile/messages.rs"]
mod messages;
#[path = "hostile/uploads.rs"]
mod uploads;

pub use messages::{Reply, Seen};

type Edit = dyn Fn(&Seen, Reply) -> Reply + Send + Sync;

/// What happens instead of the honest answer.
#[derive(Clone)]
pub enum Behaviour {
    Honest,
    Answer(Reply),
    /// The honest answer, changed.
    Edit(Arc<Edit>),
    /// The honest answer to the same request without a range.
    IgnoreRange,
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// No answer, and no end.
    Silence,
    /// RST.
    Reset,
    /// The honest answer's head and this many bytes of its body, then the end of the connection, or
    /// RST.
    Cut {
        after: usize,
        reset: bool,
    },
    /// The honest answer's head and this many bytes of its body, then nothing more, and no end.
    Stall {
        after: usize,
    },
    /// The honest answer's body in pieces with a pause before each.
    Slow {
        piece: usize,
        pause: Duration,
    },
    /// A chunked 200 of this type without end.
    Endless(&'static str),
    /// The honest answer's body in one chunk, as many bytes of it as said; with the last chunk or
    /// without.
    Chunked {
        bytes: usize,
        terminated: bool,
    },
    /// The request's body is taken in pieces with a pause before each; the answer is honest.
    TakeSlowly {
        piece: usize,
        pause: Duration,
    },
    /// This many bytes of the request's body are taken, then the connection ends by RST.
    TakeSome(usize),
    /// This answer, before the request's body is taken.
    Early(Reply),
}

impl Behaviour {
    pub fn edit(edit: impl Fn(&Seen, Reply) -> Reply + Send + Sync + 'static) -> Behaviour {
        Behaviour::Edit(Arc::new(edit))
    }
}

/// How the registry wants to be logged in to.
#[derive(Clone)]
pub enum Login {
    Basic {
        user: &'static str,
        password: &'static str,
    },
    /// Tokens from the realm. The registry's own service at `/token` wants that user, or nobody if
    /// there is none.
    Bearer {
        realm: String,
        user: Option<(&'static str, &'static str)>,
    },
}

struct Rule {
    matcher: Box<dyn Fn(&Seen) -> bool + Send>,
    /// `None`: for ever.
    script: VecDeque<Behaviour>,
    for_ever: Option<Behaviour>,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    tags: BTreeMap<String, BTreeSet<String>>,
    rules: Vec<Rule>,
    requests: Vec<Seen>,
    login: Option<Login>,
    tokens: BTreeSet<String>,
    tokens_made: usize,
    connections: Vec<Weak<TcpStream>>,
    /// How many entries of a list of tags one answer has at most, where that is less than asked for.
    page: Option<usize>,
    /// The uploads that were begun and not ended.
    uploads: BTreeSet<String>,
    uploads_begun: usize,
    /// Whether lists of referrers are made.
    lists_referrers: bool,
}

struct Shared {
    state: Mutex<State>,
    tls: Option<Arc<ServerConfig>>,
    stopped: AtomicBool,
    black: (Mutex<bool>, Condvar),
}

/// The server. Stops when dropped.
pub struct Hostile {
    shared: Arc<Shared>,
    addr: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Hostile {
    /// Starts one that speaks plain HTTP.
    pub fn start() -> Hostile {
        Hostile::start_with(None)
    }

    /// Starts one that speaks TLS.
    pub fn start_tls(tls: Arc<ServerConfig>) -> Hostile {
        Hostile::start_with(Some(tls))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Hostile {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            tls,
            stopped: AtomicBool::new(false),
            black: (Mutex::new(false), Condvar::new()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // what is sent is on its way until it is read, as over a network
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = Some(accept(listener, shared.clone()));
        Hostile { shared, addr, acceptor }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `127.0.0.1:PORT`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// Ends all connections and refuses new ones.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.black_hole(false);
        // wakes the acceptor; it then sees that it is over
        let _ = TcpStream::connect(self.addr);
        acceptor.join().unwrap();
        self.drop_connections();
    }

    /// Listens at the same port again.
    pub fn restart(&mut self) {
        self.stop();
        self.shared.stopped.store(false, Ordering::SeqCst);
        self.acceptor = Some(accept(TcpListener::bind(self.addr).unwrap(), self.shared.clone()));
    }

    /// From now on (or no longer): requests are taken and never answered.
    pub fn black_hole(&self, on: bool) {
        *self.shared.black.0.lock().unwrap() = on;
        self.shared.black.1.notify_all();
    }

    /// Ends all connections.
    pub fn drop_connections(&self) {
        for connection in self.state().connections.drain(..).filter_map(|c| c.upgrade()) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Holds a blob, in every repository.
    pub fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.state().blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    /// The bytes of a blob that it holds.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.state().blobs.get(&digest.to_string()).cloned()
    }

    /// The bytes of a manifest that it holds under a tag or digest.
    pub fn manifest(&self, repo: &str, reference: &str) -> Option<Vec<u8>> {
        self.state()
            .manifests
            .get(&(repo.to_owned(), reference.to_owned()))
            .map(|(_, bytes)| bytes.clone())
    }

    /// Loses all uploads that were begun.
    pub fn lose_uploads(&self) {
        self.state().uploads.clear();
    }

    /// Drops a blob.
    pub fn remove_blob(&self, digest: &Digest) {
        self.state().blobs.remove(&digest.to_string());
    }

    /// Holds a manifest under its digest and, if given, a tag, which moves if it was elsewhere.
    pub fn put_manifest(
        &self,
        repo: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Digest {
        let digest = Digest::of(bytes);
        let mut state = self.state();
        let value = (media_type.to_owned(), bytes.to_vec());
        state.manifests.insert((repo.to_owned(), digest.to_string()), value.clone());
        let tags = state.tags.entry(repo.to_owned()).or_default();
        if let Some(tag) = tag {
            tags.insert(tag.to_owned());
            state.manifests.insert((repo.to_owned(), tag.to_owned()), value);
        }
        digest
    }

    /// Loses a manifest that has no tag.
    pub fn remove_manifest(&self, repo: &str, digest: &Digest) {
        self.state().manifests.remove(&(repo.to_owned(), digest.to_string()));
    }

    /// Holds all of `artifact` in `repo`, under `tag`; its digest.
    pub fn publish(&self, repo: &str, tag: &str, artifact: &Artifact) -> Digest {
        for blob in &artifact.blobs {
            self.put_blob(blob);
        }
        for document in &artifact.manifests {
            self.put_manifest(repo, None, document.media_type, &document.bytes);
        }
        let root = artifact.root();
        self.put_manifest(repo, Some(tag), root.media_type, &root.bytes)
    }

    /// Drops a tag.
    pub fn remove_tag(&self, repo: &str, tag: &str) {
        let mut state = self.state();
        state.manifests.remove(&(repo.to_owned(), tag.to_owned()));
        state.tags.entry(repo.to_owned()).or_default().remove(tag);
    }

    /// Asks for a login from now on, or no longer.
    pub fn login(&self, login: Option<Login>) {
        self.state().login = login;
    }

    /// From now on no answer has more tags than this.
    pub fn page(&self, most: usize) {
        self.state().page = Some(most);
    }

    /// From now on it makes lists of referrers.
    pub fn list_referrers(&self) {
        self.state().lists_referrers = true;
    }

    /// Refuses all tokens given so far.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// `behaviour` for every request that matches. Later rules come before earlier ones.
    pub fn rule(&self, matcher: impl Fn(&Seen) -> bool + Send + 'static, behaviour: Behaviour) {
        let rule =
            Rule { matcher: Box::new(matcher), script: VecDeque::new(), for_ever: Some(behaviour) };
        self.state().rules.insert(0, rule);
    }

    /// One behaviour for each of the next matching requests, then as if there were no rule.
    pub fn script(
        &self,
        matcher: impl Fn(&Seen) -> bool + Send + 'static,
        behaviours: impl IntoIterator<Item = Behaviour>,
    ) {
        let rule = Rule {
            matcher: Box::new(matcher),
            script: behaviours.into_iter().collect(),
            for_ever: None,
        };
        self.state().rules.insert(0, rule);
    }

    /// Forgets all rules.
    pub fn behave(&self) {
        self.state().rules.clear();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.state().requests.clone()
    }

    /// The requests so far whose path starts so.
    pub fn requests_to(&self, prefix: &str) -> Vec<Seen> {
        self.requests().into_iter().filter(|seen| seen.path.starts_with(prefix)).collect()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Matches requests whose path, without the query, is this.
pub fn path(wanted: impl Into<String>) -> impl Fn(&Seen) -> bool + Send + 'static {
    let wanted = wanted.into();
    move |seen| seen.path.split('?').next() == Some(&wanted)
}

/// Matches requests for blobs.
pub fn blobs() -> impl Fn(&Seen) -> bool + Send + 'static {
    |seen| seen.path.contains("/blobs/")
}

/// Matches every request.
pub fn all() -> impl Fn(&Seen) -> bool + Send + 'static {
    |_| true
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            if shared.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(tcp) = connection else { continue };
            let _ = tcp.set_nodelay(true);
            let tcp = Arc::new(tcp);
            shared.state.lock().unwrap().connections.push(Arc::downgrade(&tcp));
            let shared = shared.clone();
            std::thread::spawn(move || {
                // an error is the client going away, or what a behaviour provoked
                let _ = match shared.tls.clone() {
                    None => serve(&shared, &*tcp, &tcp),
                    Some(tls) => ServerConnection::new(tls)
                        .map_err(io::Error::other)
                        .and_then(|session| serve(&shared, StreamOwned::new(session, &*tcp), &tcp)),
                };
            });
        }
    })
}

fn serve<S: Read + Write>(shared: &Shared, stream: S, tcp: &TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some((mut seen, length)) = read_head(&mut stream)? {
        {
            let mut black = shared.black.0.lock().unwrap();
            while *black {
                black = shared.black.1.wait(black).unwrap();
            }
        }
        let behaviour = behaviour_for(&mut shared.state.lock().unwrap(), &seen);
        if let Behaviour::Early(reply) = &behaviour {
            stream.get_mut().write_all(&reply.head())?;
            stream.get_mut().write_all(&reply.body)?;
            stream.get_mut().flush()?;
        }
        let taken = uploads::take(&mut stream, length, &behaviour, &mut seen.body);
        shared.state.lock().unwrap().requests.push(seen.clone());
        taken?;
        let honest = |seen: &Seen| answers::honest(&mut shared.state.lock().unwrap(), seen);
        if !act(stream.get_mut(), tcp, &seen, behaviour, honest)? {
            break;
        }
    }
    tcp.shutdown(Shutdown::Both)
}

fn behaviour_for(state: &mut State, seen: &Seen) -> Behaviour {
    for rule in state.rules.iter_mut().filter(|rule| (rule.matcher)(seen)) {
        if let Some(next) = rule.script.pop_front().or_else(|| rule.for_ever.clone()) {
            return next;
        }
    }
    Behaviour::Honest
}

/// A request without its body, and how long that is.
fn read_head(stream: &mut impl BufRead) -> io::Result<Option<(Seen, usize)>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) =
        (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut seen = Seen { method, path, headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        seen.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let length = seen.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    Ok(Some((seen, length)))
}

/// Answers; whether the connection goes on.
fn act(
    out: &mut impl Write,
    tcp: &TcpStream,
    seen: &Seen,
    behaviour: Behaviour,
    honest: impl Fn(&Seen) -> Reply,
) -> io::Result<bool> {
    let whole = |out: &mut dyn Write, reply: Reply| -> io::Result<bool> {
        out.write_all(&reply.head())?;
        if seen.method != "HEAD" {
            out.write_all(&reply.body)?;
        }
        out.flush()?;
        Ok(true)
    };
    match behaviour {
        Behaviour::Honest | Behaviour::TakeSlowly { .. } => whole(out, honest(seen)),
        Behaviour::TakeSome(_) => reset(tcp),
        Behaviour::Early(_) => Ok(true),
        Behaviour::Answer(reply) => whole(out, reply),
        Behaviour::Edit(edit) => whole(out, edit(seen, honest(seen))),
        Behaviour::IgnoreRange => {
            let mut plain = seen.clone();
            plain.headers.retain(|(n, _)| !n.eq_ignore_ascii_case("range"));
            whole(out, honest(&plain))
        }
        Behaviour::Raw(bytes) => out.write_all(&bytes).and_then(|()| out.flush()).map(|()| false),
        Behaviour::Silence => silence(tcp),
        Behaviour::Reset => reset(tcp),
        Behaviour::Cut { after, reset: rst } => {
            let reply = honest(seen);
            out.write_all(&reply.head())?;
            out.write_all(&reply.body[..after.min(reply.body.len())])?;
            out.flush()?;
            if rst {
                // what was sent must have arrived, or the reset would discard it
                std::thread::sleep(Duration::from_millis(100));
                return reset(tcp);
            }
            Ok(false)
        }
        Behaviour::Stall { after } => {
            let reply = honest(seen);
            out.write_all(&reply.head())?;
            out.write_all(&reply.body[..after.min(reply.body.len())])?;
            out.flush()?;
            silence(tcp)
        }
        Behaviour::Slow { piece, pause } => {
            let reply = honest(seen);
            out.write_all(&reply.head())?;
            for bytes in reply.body.chunks(piece) {
                out.flush()?;
                std::thread::sleep(pause);
                out.write_all(bytes)?;
            }
            out.flush().map(|()| true)
        }
        Behaviour::Endless(content_type) => {
            let head =
                Reply::new(200, content_type, "").with("Transfer-Encoding", "chunked").head();
            out.write_all(&head)?;
            loop {
                out.write_all(b"1000\r\n")?;
                out.write_all(&[b'x'; 0x1000])?;
                out.write_all(b"\r\n")?;
            }
        }
        Behaviour::Chunked { bytes, terminated } => {
            let reply = honest(seen).with("Transfer-Encoding", "chunked");
            let body = &reply.body[..bytes.min(reply.body.len())];
            out.write_all(&reply.head())?;
            out.write_all(format!("{:x}\r\n", body.len()).as_bytes())?;
            out.write_all(body)?;
            out.write_all(if terminated { b"\r\n0\r\n\r\n" } else { b"\r\n" })?;
            out.flush().map(|()| terminated)
        }
    }
}

/// Ends when the client closes or the server stops.
fn silence(mut tcp: &TcpStream) -> io::Result<bool> {
    let _ = tcp.read(&mut [0]);
    Ok(false)
}

/// The connection ends by RST when its last descriptor is closed, which is why this is an error: no
/// orderly end follows.
fn reset(tcp: &TcpStream) -> io::Result<bool> {
    rustix::net::sockopt::set_socket_linger(tcp, Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionReset.into())
}
