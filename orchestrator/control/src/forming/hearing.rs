//! What counts as having heard a machine.
//!
//! Every machine asks every other, with its own hello, and is answered with the other's. A machine that was asked and has
//! answered is heard; one that only asks is not, because its answers may not come through, but what it says is news about
//! itself if it is heard already. Hellos come by two ways and may overtake each other, so they are counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Fingerprint, Heard, Hello};

/// What is remembered of other machines; those heard the longest ago make room.
const HEARD_MAX: usize = 256;

/// Where a hello stands among all that a machine has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Random, per run of the program.
    pub epoch: u64,
    /// Counts the hellos of the run.
    pub count: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Hearing {
    orders: BTreeMap<Fingerprint, Order>,
}

impl Hearing {
    /// Takes a hello of the machine that has proven `key`, into the hellos that were heard. `asked`: it is the answer to one of
    /// this machine's own. Says whether that is news.
    pub fn hear(
        &mut self,
        heard: &mut BTreeMap<Fingerprint, Heard>,
        (key, hello, order): (Fingerprint, Hello, Order),
        asked: bool,
        now: Duration,
    ) -> bool {
        let older = self.is_older(key, order);
        let Some(known) = heard.get_mut(&key) else {
            if asked {
                make_room(heard);
                heard.insert(key, Heard { hello, at: now });
            }
            return asked;
        };
        let news = !older && known.hello != hello;
        if news {
            known.hello = hello;
        }
        if asked {
            known.at = now;
        }
        news || asked
    }

    fn is_older(&mut self, key: Fingerprint, order: Order) -> bool {
        let newest = self.orders.get(&key);
        if newest.is_some_and(|it| it.epoch == order.epoch && it.count > order.count) {
            return true;
        }
        if self.orders.len() >= HEARD_MAX {
            self.orders.clear();
        }
        self.orders.insert(key, order);
        false
    }
}

fn make_room(heard: &mut BTreeMap<Fingerprint, Heard>) {
    if heard.len() >= HEARD_MAX {
        let oldest = heard.iter().min_by_key(|(_, heard)| heard.at).map(|(key, _)| *key);
        oldest.map(|key| heard.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, Standing};
    use super::*;

    fn hello(name: &str) -> (Fingerprint, Hello) {
        let machine = Machine { member: 1, name: name.to_owned(), public_key: vec![1] };
        let key = machine.fingerprint();
        let standing = Standing::Blank { accepted: None };
        (key, Hello { machine, expect: 3, standing, sees: BTreeMap::new(), choice: None })
    }

    #[test]
    fn only_an_answer_is_heard_and_an_older_hello_is_no_news() {
        let (mut hearing, mut heard) = (Hearing::default(), BTreeMap::new());
        let mut hear = |name: &str, count, asked, at| {
            let (key, hello) = hello(name);
            let order = Order { epoch: 9, count };
            let news =
                hearing.hear(&mut heard, (key, hello, order), asked, Duration::from_secs(at));
            let known = heard.get(&key);
            (news, known.map(|it| (it.hello.machine.name.clone(), it.at.as_secs())))
        };
        assert_eq!(hear("first", 1, false, 1), (false, None));
        let known = |name: &str, at| Some((name.to_owned(), at));
        assert_eq!(hear("second", 2, true, 2), (true, known("second", 2)));
        assert_eq!(hear("third", 3, false, 3), (true, known("third", 2)));
        assert_eq!(hear("second", 2, true, 4), (true, known("third", 4)));
        assert_eq!(hear("third", 3, false, 5), (false, known("third", 4)));
    }
}
