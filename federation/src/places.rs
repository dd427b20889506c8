//! Places for work that others cause: so many at a time, few of them for one who causes it.

use dashmap::DashMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// So many places, and how many of them one may have.
#[derive(Debug)]
pub(crate) struct Places {
    all: Semaphore,
    of_one: usize,
    /// Of those who have or await some.
    ones: DashMap<String, Arc<Semaphore>>,
}

impl Places {
    pub(crate) fn new(all: usize, of_one: usize) -> Self {
        Self { all: Semaphore::new(all), of_one, ones: DashMap::new() }
    }

    /// Does `work`, which `who` causes, when there is a place for it.
    pub(crate) async fn in_turn<T>(&self, who: &str, work: impl Future<Output = T>) -> T {
        let one = self.ones.entry(who.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.of_one)));
        let turn = Turn { places: self, who, one: one.clone() };
        drop(one);
        // Neither is ever closed.
        let _of_one = turn.one.acquire().await;
        self.any(work).await
    }

    /// Does work that nobody else causes.
    pub(crate) async fn any<T>(&self, work: impl Future<Output = T>) -> T {
        let _place = self.all.acquire().await;
        work.await
    }
}

/// Somebody who has or awaits a place; forgotten with the last, also if the work is given up.
struct Turn<'p> {
    places: &'p Places,
    who: &'p str,
    one: Arc<Semaphore>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // This one, and the map's.
        self.places.ones.remove_if(self.who, |_, one| Arc::strong_count(one) == 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{self, FutureExt, poll_immediate};

    #[tokio::test]
    async fn one_whose_work_does_not_end_leaves_places_for_others() {
        let places = Places::new(3, 2);
        let mut endless: Vec<_> =
            (0..5).map(|_| places.in_turn("slow", future::pending::<()>()).boxed()).collect();
        for work in &mut endless {
            assert!(poll_immediate(work).await.is_none());
        }
        for n in 0..5 {
            assert_eq!(poll_immediate(places.in_turn("other", future::ready(n))).await, Some(n));
        }
        assert!(poll_immediate(places.in_turn("slow", future::ready(()))).await.is_none());
        drop(endless);
        assert_eq!(poll_immediate(places.in_turn("slow", future::ready(()))).await, Some(()));
        assert!(places.ones.is_empty(), "nobody is remembered who has no place");
    }

    #[tokio::test]
    async fn there_are_no_more_places_than_there_are_whoever_comes() {
        let places = Places::new(3, 2);
        let names = ["a", "b", "c", "d"];
        let mut endless: Vec<_> =
            names.iter().map(|who| places.in_turn(who, future::pending::<()>()).boxed()).collect();
        for work in &mut endless {
            assert!(poll_immediate(work).await.is_none());
        }
        assert!(poll_immediate(places.any(future::ready(()))).await.is_none());
        drop(endless.remove(0));
        // The one that waited has it now.
        assert!(poll_immediate(&mut endless[2]).await.is_none());
        assert!(poll_immediate(places.any(future::ready(()))).await.is_none());
    }
}
