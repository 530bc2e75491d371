//! Single flight.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(600);

fn flights(linger: Duration) -> Arc<Flights<u8, u32, String>> {
    Arc::new(Flights::new(linger, |_| "lost".to_owned()))
}

/// Works that wait until they are told to end.
#[derive(Clone, Default)]
struct Works {
    started: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    go: Arc<Notify>,
}

impl Works {
    async fn run(self, result: Result<u32, String>) -> Result<u32, String> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(self.dropped.clone());
        self.go.notified().await;
        result
    }

    async fn join(
        &self,
        flights: Arc<Flights<u8, u32, String>>,
        result: Result<u32, String>,
    ) -> Result<u32, String> {
        let works = self.clone();
        flights.join(7, move || works.run(result)).await
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// O27, O29
#[tokio::test]
async fn sixty_four_joins_run_once_and_share_success_and_failure_alike() {
    for result in [Ok(5), Err("no".to_owned())] {
        let (flights, works) = (flights(LONG), Works::default());
        let joins: Vec<_> = (0..64)
            .map(|_| {
                let (works, flights, result) = (works.clone(), flights.clone(), result.clone());
                tokio::spawn(async move { works.join(flights, result).await })
            })
            .collect();
        until(|| works.started() == 1).await;
        tokio::task::yield_now().await;
        works.go.notify_one();
        for join in joins {
            assert_eq!(join.await.unwrap(), result);
        }
        assert_eq!((works.started(), flights.running()), (1, 0));
        // Nothing is kept, failures least of all.
        works.go.notify_one();
        assert_eq!(works.join(flights.clone(), Ok(6)).await, Ok(6));
        assert_eq!(works.started(), 2);
    }
}

/// O28: the first waiter is not the owner of the work.
#[tokio::test]
async fn a_waiter_that_goes_takes_nothing_from_the_others() {
    let (flights, works) = (flights(LONG), Works::default());
    let join = || {
        let (works, flights) = (works.clone(), flights.clone());
        tokio::spawn(async move { works.join(flights, Ok(1)).await })
    };
    let first = join();
    until(|| works.started() == 1).await;
    let second = join();
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    works.go.notify_one();
    assert_eq!(second.await.unwrap(), Ok(1));
    assert_eq!(works.started(), 1);
}

/// O30
#[tokio::test]
async fn a_deserted_work_is_joined_again_within_its_linger_and_dropped_after_it() {
    let (patient, works) = (flights(LONG), Works::default());
    let deserted =
        tokio::time::timeout(Duration::from_millis(20), works.join(patient.clone(), Ok(1))).await;
    assert!(deserted.is_err());
    // Time for a work that would not linger to be dropped.
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!((patient.running(), works.dropped.load(Ordering::SeqCst)), (1, 0));
    works.go.notify_one();
    assert_eq!(works.join(patient.clone(), Ok(2)).await, Ok(1), "the first work's result");
    assert_eq!(works.started(), 1);

    let (hasty, works) = (flights(Duration::from_millis(5)), Works::default());
    let deserted =
        tokio::time::timeout(Duration::from_millis(20), works.join(hasty.clone(), Ok(1))).await;
    assert!(deserted.is_err());
    until(|| hasty.running() == 0 && works.dropped.load(Ordering::SeqCst) == 1).await;
    works.go.notify_one();
    assert_eq!(works.join(hasty, Ok(2)).await, Ok(2));
}

#[tokio::test]
async fn a_work_that_panics_leaves_nobody_waiting() {
    let flights = flights(LONG);
    let panics = |flights: Arc<Flights<u8, u32, String>>| async move {
        flights
            .join(7, || async {
                tokio::task::yield_now().await;
                if true { panic!("on purpose") } else { Ok(0) }
            })
            .await
    };
    let both = tokio::join!(panics(flights.clone()), panics(flights.clone()));
    assert_eq!(both, (Err("lost".to_owned()), Err("lost".to_owned())));
    assert_eq!(flights.running(), 0);
    assert_eq!(flights.join(7, || async { Ok(1) }).await, Ok(1));
}

/// Who joins while a deserted work is about to be dropped keeps it from that.
#[test]
fn a_work_that_somebody_waits_for_again_is_not_dropped() {
    let flights = Flights::<u8, u8, ()>::new(Duration::ZERO, |_| ());
    let (_sender, result) = watch::channel(None);
    let waiters = watch::Sender::new(1);
    flights.shared.running.lock().insert(7, Flight { result, waiters: waiters.clone() });
    let landing = Landing { shared: flights.shared.clone(), key: 7, waiters };
    assert!(!landing.land(true) && flights.running() == 1);
    landing.waiters.send_replace(0);
    assert!(landing.land(true) && flights.running() == 0);
    // What took its place meanwhile is another work.
    let (_sender, result) = watch::channel(None);
    flights.shared.running.lock().insert(7, Flight { result, waiters: watch::Sender::new(1) });
    drop(landing);
    assert_eq!(flights.running(), 1);
}
