//! A link to the database that is cut at every point of the exchange: one effect each time.

use crate::carts::{add, check_table, connection, version, with_key};
use crate::faults::{start, through};
use foldstream_testkit::eventually;
use foldstream_testkit::proxy::{Ending, Mode, Point, Proxy, Way};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(15);
/// Points of each exchange, from its first byte to its last.
const POINTS: u64 = 12;

#[tokio::test]
async fn a_link_cut_at_any_point_of_the_exchange_leaves_one_effect() {
    let database = crate::carts::database("cuts").await;
    let proxy = Proxy::before(&database.url).await;
    let store = crate::carts::open(through(&proxy, &database)).await;
    let mut table = connection(&database).await;
    let mut done = 0;
    let execute = |n: u64, keyed: bool| match keyed {
        true => with_key(add("cart", "b"), &format!("k{n}"), 1),
        false => add("cart", "b"),
    };
    for (keyed, way, ending) in [
        (false, Way::ToServer, Ending::Close),
        (false, Way::ToClient, Ending::Reset),
        (true, Way::ToServer, Ending::Reset),
        (true, Way::ToClient, Ending::Close),
    ] {
        // Whole, to know how long it is; the first one may have to connect.
        let mut before = 0;
        for _ in 0..2 {
            before = proxy.passed(way);
            done += 1;
            assert_eq!(version(&store.execute(execute(done, keyed)).await), done);
        }
        let length = proxy.passed(way) - before;
        let mut cuts = 0;
        for point in 0..POINTS {
            proxy.cut_at(way, Point::Bytes(point * length / POINTS), ending);
            done += 1;
            let executed = store.execute(execute(done, keyed)).await;
            let replayed = executed.as_ref().is_ok_and(|executed| executed.replayed);
            assert_eq!((version(&executed), replayed), (done, false), "{way:?} at {point}");
            assert_eq!(check_table(&mut table).await as u64, done, "{way:?} at {point}");
            cuts += u64::from(proxy.has_cut());
            proxy.disarm();
        }
        assert!(cuts > POINTS / 2, "{cuts} of {POINTS} cuts came to pass");
    }
}

#[tokio::test]
async fn a_repeat_whose_own_link_broke_is_still_told_that_it_is_one() {
    let database = crate::carts::database("repeat").await;
    let proxy = Proxy::before(&database.url).await;
    let store = crate::carts::open(through(&proxy, &database)).await;
    let asked = || with_key(add("cart", "a"), "key", 1);
    let first = store.execute(asked()).await.unwrap();
    assert!(!first.replayed);
    let passed = proxy.passed(Way::ToServer);
    proxy.set_way(Way::ToClient, Mode::Drop);
    let running = start(&store, asked());
    eventually(LONG, "the repeat is sent", async || proxy.passed(Way::ToServer) > passed).await;
    proxy.heal();
    proxy.cut(Ending::Close);
    let again = running.await.unwrap().unwrap();
    assert!(again.replayed);
    assert_eq!((again.verdict, again.token), (first.verdict, first.token));
}
