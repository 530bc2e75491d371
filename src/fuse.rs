//! The kernel's side: decode, ask [`Fs`], reply. No decision is made here.
//!
//! An operation is polled once on the thread that read the request; what is cached is answered
//! there. What has to wait goes on in the runtime with its reply, so that these threads never wait
//! for a network.

mod caller;
mod decode;
mod operations;
pub mod passthrough;
mod reply;
pub mod session;

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use fuser::Request;
use tokio::runtime::Handle;

use crate::facts::on_behalf_of;
use crate::fs::{Errno, Fs, FsError, Writable};
use crate::metrics::{TimedOperation, metrics};
use caller::Caller;
use passthrough::Passthrough;

/// `fuser`'s view of a file system.
pub struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    passthrough: Arc<Passthrough>,
    options: AdapterOptions,
    /// Whether the kernel maps files whose pages are bypassed.
    may_bypass: bool,
}

/// How the kernel is served.
#[derive(Clone, Copy, Debug)]
pub struct AdapterOptions {
    /// Whether files are read without being opened where the kernel does not read by itself. That
    /// saves a round trip per open, but what is read is not kept from eviction; so it is for mounts
    /// that nobody writes.
    pub without_open: bool,
}

impl Adapter {
    /// Serves `fs`; what has to wait runs in `runtime`.
    pub fn new(fs: Arc<Fs>, runtime: Handle, options: AdapterOptions) -> Self {
        Adapter { fs, runtime, passthrough: Arc::default(), options, may_bypass: false }
    }

    /// Which inodes the kernel reads by itself; off until it was probed.
    pub fn passthrough(&self) -> Arc<Passthrough> {
        self.passthrough.clone()
    }

    /// Whether files are read without being opened. Never beside passthrough: the kernel has one
    /// answer for all files.
    fn is_without_open(&self) -> bool {
        self.options.without_open && !self.passthrough.is_on()
    }

    fn writable(&self) -> Arc<Writable> {
        self.fs.writable().clone()
    }

    /// Polls an operation once, and lets it go on in the runtime if it has to wait. There it also
    /// ends, with EINTR, when who asked was killed.
    fn answer<T: Send + 'static>(
        &self,
        request: &Request,
        operation: impl Future<Output = Result<T, FsError>> + Send + 'static,
        reply: impl FnOnce(Result<T, FsError>) + Send + 'static,
    ) {
        let asker = self.fs.asker(decode::who(request));
        let mut operation = Box::pin(on_behalf_of(request.pid(), asker.run(operation)));
        let _entered = self.runtime.enter();
        match operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => reply(outcome),
            Poll::Pending => {
                let caller = Caller::new(request.pid());
                metrics().waiting.inc();
                self.runtime.spawn(async move {
                    let outcome = tokio::select! {
                        outcome = operation => outcome,
                        () = caller.killed() => Err(FsError::plain(Errno::EINTR)),
                    };
                    metrics().waiting.dec();
                    reply(outcome);
                });
            }
        }
    }
}

/// A reply whose time, from now on, is counted.
fn timed<T>(operation: TimedOperation, reply: impl FnOnce(T)) -> impl FnOnce(T) {
    let begun = Instant::now();
    move |outcome| {
        metrics().answered(operation, begun.elapsed());
        reply(outcome);
    }
}
