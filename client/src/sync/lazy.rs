//! Which members a device has been told of, so that lazily loaded members are not sent over and over (specification: lazy
//! loading room members).

use parking_lot::Mutex;
use postern_graph::{RoomNum, Seq, UserNum};
use quick_cache::sync::Cache;
use std::{collections::HashMap, sync::Arc};

/// Devices and rooms remembered; what is forgotten is sent again.
const REMEMBERED: usize = 20_000;
/// Members remembered for one of them.
const MEMBERS: usize = 2_000;

type Told = Arc<Mutex<HashMap<UserNum, Seq>>>;

/// What devices were told.
#[derive(Debug)]
pub struct Lazy {
    told: Cache<(UserNum, String, RoomNum), Told>,
}

impl Default for Lazy {
    fn default() -> Self {
        Self { told: Cache::new(REMEMBERED) }
    }
}

impl Lazy {
    /// Whether a device that stands at `since` has been told of a member of a room. If not it is noted to be told with
    /// the answer that ends at `up_to`: an answer that is lost is asked for again with the old token.
    pub(crate) fn knows(
        &self,
        device: (UserNum, &str, RoomNum),
        member: UserNum,
        since: Option<Seq>,
        up_to: Seq,
    ) -> bool {
        let key = (device.0, device.1.to_owned(), device.2);
        let told = match self.told.get(&key) {
            Some(told) => told,
            None => {
                let told = Told::default();
                self.told.insert(key, told.clone());
                told
            }
        };
        let mut told = told.lock();
        if let Some(at) = told.get(&member)
            && since.is_some_and(|since| *at <= since)
        {
            return true;
        }
        if told.len() >= MEMBERS {
            told.clear();
        }
        told.insert(member, up_to);
        false
    }
}
