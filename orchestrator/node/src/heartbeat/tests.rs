//! Three nodes in one process, joined by pipes that can be cut.

use std::sync::atomic::{AtomicBool, Ordering};

use podium_api::seams::SystemClock;
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

/// Ways from one node to others.
struct Pipes {
    from: String,
    boards: BTreeMap<String, Arc<Board>>,
    /// Nothing passes any more, and nobody is told.
    cut: Arc<AtomicBool>,
}

impl Reach for Pipes {
    fn reach(&self, voter: String) -> BoxFuture<'_, Result<Box<dyn Stream>, String>> {
        Box::pin(async move {
            let board = Arc::clone(self.boards.get(&voter).ok_or("no such voter")?);
            if self.cut.load(Ordering::Relaxed) {
                return Err("no route".to_owned());
            }
            let (here, relay_here) = tokio::io::duplex(4096);
            let (relay_there, there) = tokio::io::duplex(4096);
            let cut = Arc::clone(&self.cut);
            tokio::spawn(relay(relay_here, relay_there, cut));
            let (from, votes) = (self.from.clone(), self.from != "n3");
            tokio::spawn(async move { drop(serve(there, &from, votes, &board).await) });
            Ok(Box::new(here) as Box<dyn Stream>)
        })
    }
}

/// Passes bytes on both ways until it is cut; then it swallows them.
async fn relay(one: impl Stream, other: impl Stream, cut: Arc<AtomicBool>) {
    let ((mut a, mut b), (mut c, mut d)) = (split(one), split(other));
    let there = pass(&mut a, &mut d, &cut);
    let back = pass(&mut c, &mut b, &cut);
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    cut: &AtomicBool,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut bytes = [0; 512];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !cut.load(Ordering::Relaxed) && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Fast enough for a test.
fn timings() -> Timings {
    let millis = Duration::from_millis;
    Timings { beat: millis(20), silence: millis(300), alone: millis(900), ..Timings::default() }
}

struct Room {
    boards: BTreeMap<String, Arc<Board>>,
    cuts: BTreeMap<String, Arc<AtomicBool>>,
    cut_off: BTreeMap<String, watch::Receiver<Option<String>>>,
}

/// `n1` and `n2` vote, `n3` does not.
fn room() -> Room {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let names = ["n1", "n2", "n3"];
    let board = |name: &&str| {
        let board = Board::new(name, timings(), Arc::clone(&clock));
        ((*name).to_owned(), board)
    };
    let boards: BTreeMap<_, _> = names.iter().map(board).collect();
    let mut room = Room { boards, cuts: BTreeMap::new(), cut_off: BTreeMap::new() };
    for (name, board) in &room.boards {
        let cut = Arc::new(AtomicBool::new(false));
        let voters = BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
        let pipes =
            Pipes { from: name.clone(), boards: room.boards.clone(), cut: Arc::clone(&cut) };
        let (cut_off, told) = watch::channel(None);
        let heart = Heart {
            board: Arc::clone(board),
            voters: watch::channel(voters).1,
            reach: Arc::new(pipes),
            ready: watch::channel(true).1,
            cut_off,
        };
        tokio::spawn(heart.run());
        room.cuts.insert(name.clone(), cut);
        room.cut_off.insert(name.clone(), told);
    }
    room
}

async fn until(beats: &mut broadcast::Receiver<Beat>, what: impl Fn(&Beat) -> bool) -> Beat {
    let found = async {
        loop {
            match beats.recv().await {
                Ok(beat) if what(&beat) => return beat,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(DEADLINE, found).await.expect("such a beat in time")
}

#[tokio::test]
async fn voters_hear_all_nodes_and_whom_other_voters_hear() {
    let room = room();
    let mut beats = room.boards["n1"].subscribe();
    let hears = |beat: &Beat, of: &str| beat.hears.contains_key(of);
    until(&mut beats, |beat| beat.from == "n2" && hears(beat, "n1") && hears(beat, "n3")).await;
    let beat = until(&mut beats, |beat| beat.from == "n2" && hears(beat, "n3")).await;
    assert!(beat.ready && beat.hears.values().all(|age| *age < DEADLINE));
    let says = async {
        while !hears(&room.boards["n3"].beat(true), "n2") {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, says).await.expect("n3 hears the answers of n2");
    let mut beats = room.boards["n1"].subscribe();
    // The first of them may have been made before.
    for _ in 0..3 {
        let beat = until(&mut beats, |beat| beat.from == "n3").await;
        assert!(beat.ready && beat.hears.is_empty(), "it does not vote: {:?}", beat.hears);
    }
    let last = |node: &str| room.boards["n1"].last(node);
    assert!(last("n3").is_some() && last("n3") <= last("n1"), "its own node it always hears");
    assert_eq!(last("n9"), None);
}

#[tokio::test]
async fn node_that_was_cut_off_says_so_and_is_heard_again_when_the_cut_is_mended() {
    let mut room = room();
    let mut beats = room.boards["n1"].subscribe();
    until(&mut beats, |beat| beat.from == "n3").await;
    room.cuts["n3"].store(true, Ordering::Relaxed);
    let told = room.cut_off.get_mut("n3").expect("n3");
    let line = timeout(DEADLINE, told.wait_for(Option::is_some)).await.expect("in time");
    let line = line.expect("told").clone().expect("a line");
    assert_eq!(line, "cut off: none of the voters answers (n1, n2); the pods go on");
    let old = Duration::from_millis(300);
    until(&mut beats, |beat| beat.from == "n2" && beat.hears.get("n3").is_some_and(|it| *it > old))
        .await;
    room.cuts["n3"].store(false, Ordering::Relaxed);
    until(&mut beats, |beat| beat.from == "n3").await;
    let told = room.cut_off.get_mut("n3").expect("n3");
    let _ =
        timeout(DEADLINE, told.wait_for(Option::is_none)).await.expect("in time").expect("told");
}

#[tokio::test]
async fn stranger_that_says_nothing_known_is_not_heard() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let board = Board::new("n1", timings(), clock);
    let (mut here, there) = tokio::io::duplex(64);
    frame::say(&mut here, &(99_u8, "x"), DEADLINE).await.expect("written");
    let ended = serve(there, "n2", true, &board).await;
    assert!(matches!(ended, Err(FrameError::Malformed(_))));
    assert!(board.beat(true).hears.is_empty());
}
