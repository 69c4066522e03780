//! The line before a device.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::RunContext;

/// How often a run in the line looks whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(10);

/// Lets one run at a time use a device, first come, first served, whatever models and queries they are of.
///
/// A device has memory for one run that fills it, and runs that share it only slow each other down. A run holds no cores while it
/// waits here or is on the device: the next batch is encoded and the one before is decoded meanwhile. Whoever is in the
/// line leaves it when its query is cancelled. While nobody is in it, the device is idle, which is counted for the run that comes next,
/// from the end of the one before or the begin of its own query on: [`RunCounts::idle`](super::RunCounts::idle).
///
/// ```
/// use datafusion_predict::{DeviceQueue, RunContext};
///
/// let queue = DeviceQueue::default();
/// assert_eq!(queue.run(&RunContext::default(), || 1 + 1), Some(2));
/// ```
#[derive(Debug, Default)]
pub struct DeviceQueue {
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    /// Those who wait, by their numbers, the first in front.
    waiting: VecDeque<u64>,
    next: u64,
    is_busy: bool,
    /// When the last run ended.
    free_since: Option<Instant>,
}

impl DeviceQueue {
    /// Does `run` on the device, when those who came before are done; `None` if it is cancelled before. The time in the line is added
    /// to [`RunCounts::waited`](super::RunCounts::waited), and is not part of the run's own.
    pub fn run<T>(&self, context: &RunContext, run: impl FnOnce() -> T) -> Option<T> {
        context.without_cores(|| {
            let place = context.counts.while_waiting(|| self.wait(context));
            let _place = place?;
            Some(run())
        })
    }

    /// Runs in the line at this moment, without the one on the device.
    pub fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    fn wait(&self, context: &RunContext) -> Option<Place<'_>> {
        let mut line = self.line();
        let number = line.next;
        line.next += 1;
        line.waiting.push_back(number);
        loop {
            if context.cancel.is_cancelled() {
                line.waiting.retain(|waiting| *waiting != number);
                drop(line);
                self.moved.notify_all(); // who is behind may be the first now
                return None;
            }
            if !line.is_busy && line.waiting.front() == Some(&number) {
                line.waiting.pop_front();
                line.is_busy = true;
                let idle_since = line.free_since.map_or(context.began, |free| free.max(context.began));
                context.counts.add_idle(idle_since.elapsed());
                return Some(Place { queue: self });
            }
            line = self.moved.wait_timeout(line, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device, until this is dropped, whatever happens on it.
struct Place<'a> {
    queue: &'a DeviceQueue,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        line.is_busy = false;
        line.free_since = Some(Instant::now());
        drop(line);
        self.queue.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::cancel::CancelToken;
    use crate::engine::{CoreBudget, CoreLease};

    fn until(what: impl Fn() -> bool) {
        while !what() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn runs_come_in_the_order_of_asking_and_cancelled_ones_leave() {
        let (queue, order) = (DeviceQueue::default(), Mutex::new(vec![]));
        let (cancelled, release) = (CancelToken::default(), CancelToken::default());
        std::thread::scope(|scope| {
            scope.spawn(|| queue.run(&RunContext::default(), || until(|| release.is_cancelled())));
            until(|| queue.line().is_busy);
            for number in 0..6 {
                let (queue, order, cancelled) = (&queue, &order, cancelled.clone());
                scope.spawn(move || {
                    let cancel = if number % 3 == 1 { cancelled } else { CancelToken::default() };
                    let context = RunContext { cancel, ..RunContext::default() };
                    queue.run(&context, || order.lock().expect("no panic").push(number))
                });
                until(|| queue.waiting() == number + 1);
            }
            cancelled.cancel();
            until(|| queue.waiting() == 4);
            release.cancel();
        });
        assert_eq!(*order.lock().expect("no panic"), [0, 2, 3, 5]);
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn a_panic_on_the_device_leaves_it_to_the_next() {
        let queue = DeviceQueue::default();
        let run = || queue.run(&RunContext::default(), || panic!("a fault of the driver"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        assert_eq!(queue.run(&RunContext::default(), || 7), Some(7));
    }

    #[test]
    fn cores_are_free_while_a_run_waits_for_the_device_and_is_on_it() {
        let (queue, cores) = (DeviceQueue::default(), Arc::new(CoreBudget::new(1)));
        let lease = Arc::new(CoreLease::new(cores.clone(), cores.try_take(1).expect("it is free")));
        assert_eq!(cores.free(), 0);
        let context = RunContext { cores: Some(lease.clone()), ..RunContext::default() };
        assert_eq!(queue.run(&context, || cores.free()), Some(1));
        assert_eq!(cores.free(), 0, "what follows has the core again");
        let other = queue.run(&context, || cores.try_take(1).expect("it is free"));
        assert!(other.is_some() && !lease.is_held(), "nobody waits for a core that another has");
        drop(other);
        assert_eq!(cores.free(), 1);
        context.cancel.cancel();
        assert_eq!(queue.run(&context, || ()), None);
        drop((context, lease));
        assert_eq!(cores.free(), 1);
    }

    #[test]
    fn a_device_is_idle_between_runs_but_not_before_the_query() {
        const PAUSE: Duration = Duration::from_millis(30);
        let (queue, first) = (DeviceQueue::default(), RunContext::default());
        queue.run(&first, || ());
        std::thread::sleep(PAUSE);
        let second = RunContext::default();
        queue.run(&second, || std::thread::sleep(PAUSE));
        assert!(second.counts.take_idle() < PAUSE, "its query had not begun");
        queue.run(&first, || ());
        assert!(first.counts.take_idle() < PAUSE, "it was busy, with the run of another query");
        std::thread::sleep(PAUSE);
        queue.run(&first, || ());
        assert!(first.counts.take_idle() >= PAUSE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Partitions of several models share a device and few cores, and some queries are dropped at some point: one run at a time is
        /// on the device, no more cores are in use than there are, all others get their turn, and everything is free at the end.
        #[test]
        fn no_schedule_ends_in_a_deadlock(
            runs in prop::collection::vec((0_usize..3, prop::collection::vec(0_u64..3, 1..6), prop::option::of(0_u64..8)), 1..9),
            cores in 1_usize..4,
        ) {
            let (queue, budget) = (DeviceQueue::default(), Arc::new(CoreBudget::new(cores)));
            let (on_device, at_work, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for (model, batches, dropped_after) in &runs {
                    let (queue, budget, on_device, at_work, done) = (&queue, &budget, &on_device, &at_work, &done);
                    let cancel = CancelToken::default();
                    let token = cancel.clone();
                    scope.spawn(move || {
                        for time in batches {
                            let own = futures::executor::block_on(budget.take(1));
                            let lease = Arc::new(CoreLease::new(budget.clone(), own));
                            let context = RunContext { cancel: token.clone(), cores: Some(lease), ..RunContext::default() };
                            assert!(at_work.fetch_add(1, Ordering::SeqCst) < cores, "more at work than cores");
                            std::thread::sleep(Duration::from_micros(100 * *model as u64)); // encodes
                            at_work.fetch_sub(1, Ordering::SeqCst);
                            let ran = queue.run(&context, || {
                                assert_eq!(on_device.fetch_add(1, Ordering::SeqCst), 0, "two on the device");
                                std::thread::sleep(Duration::from_micros(100 * time));
                                on_device.fetch_sub(1, Ordering::SeqCst);
                            });
                            if ran.is_none() {
                                break;
                            }
                        }
                        done.fetch_add(1, Ordering::SeqCst);
                    });
                    if let Some(after) = dropped_after {
                        scope.spawn(move || {
                            std::thread::sleep(Duration::from_micros(100 * after));
                            cancel.cancel();
                        });
                    }
                }
            });
            prop_assert_eq!(done.into_inner(), runs.len());
            prop_assert_eq!(queue.waiting(), 0);
            prop_assert_eq!(budget.free(), cores);
        }
    }
}
