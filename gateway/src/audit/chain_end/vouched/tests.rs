//! Tests of chains at whose end stands what no gateway appended.

use std::time::Duration;

use tidegate_policy::audit::keys::Revocation;
use tidegate_policy::audit::record::KeyVersion;
use tidegate_policy::audit::verify::Verdict;

use super::super::Accepted;
use super::super::own_time::{BEGINS_US, COUNTS_US, PATIENCE_US};
use super::super::tests::{
    FalseSigner, Forged, TestSigner, begin, commit, event, looks, open, verify, world,
};
use super::*;

const BEGINS: Duration = Duration::from_micros(BEGINS_US + COUNTS_US);

/// Whoever may write to the store, and has no key.
fn forged() -> [Forged; 2] {
    [Forged::Unsigned, Forged::By(FalseSigner { key: 2, version: 1 })]
}

/// The gateway's next signature would cover it.
#[tokio::test(start_paused = true)]
async fn nothing_is_linked_behind_a_record_that_no_gateway_signed() {
    for seal in forged() {
        let (store, dir) = world();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let mut end = begin(&store, dir.path()).await;
        commit(&mut end, &["a"]).await;
        store.forge(event("forged"), &seal);
        let mut fresh = open(&store, elsewhere.path());
        looks(&mut [&mut fresh], BEGINS).await;
        for id in ["b", "c"] {
            assert_eq!(commit(&mut end, &[id]).await, Accepted::Spooled, "{id}");
        }
        assert_eq!(commit(&mut fresh, &["d"]).await, Accepted::Spooled);
        looks(&mut [&mut end, &mut fresh], Duration::from_secs(30)).await;
        assert_eq!(store.records().await.len(), 2);
        // Somebody has taken it away.
        store.set_back(1);
        looks(&mut [&mut end, &mut fresh], BEGINS).await;
        assert_eq!(commit(&mut end, &["e"]).await, Accepted::Chained);
        assert_eq!(commit(&mut fresh, &["f"]).await, Accepted::Chained);
        let (report, mut ids) = verify(&store).await;
        ids.sort();
        assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcdef".to_owned()));
    }
}

/// The store lost records, and behind what it kept stands a record that no gateway appended.
#[tokio::test(start_paused = true)]
async fn no_rollback_is_put_behind_a_record_that_no_gateway_signed() {
    for seal in forged() {
        let (store, dir) = world();
        let mut end = begin(&store, dir.path()).await;
        for id in ["a", "b", "c"] {
            commit(&mut end, &[id]).await;
        }
        store.set_back(1);
        store.forge(event("forged"), &seal);
        end.retry().await;
        assert!(end.is_set_back());
        looks(&mut [&mut end], Duration::from_micros(3 * PATIENCE_US)).await;
        assert_eq!((store.records().await.len(), end.counters.origins.get()), (2, 0));
    }
}

/// The first record after a key was revoked stands behind what it signed, and a new key may come to this gateway
/// later than to the one that signs with it.
#[tokio::test(start_paused = true)]
async fn records_of_a_key_that_is_revoked_or_not_known_yet_hold_nobody_up() {
    for is_known in [true, false] {
        let (store, dir) = world();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let mut other = begin(&store, elsewhere.path()).await;
        *other.signer.write().expect("no panic") = Some(Arc::new(TestSigner(2)));
        let mut end = begin(&store, dir.path()).await;
        let mut ring = super::super::tests::ring();
        if is_known {
            let key = ring.keys.get_mut(&KeyVersion(2)).expect("a key");
            key.revoked = Some(Revocation { after_seq: None, reason: String::new() });
        } else {
            ring.keys.remove(&KeyVersion(2));
        }
        *end.keys.write().expect("no panic") = Arc::new(ring);
        commit(&mut other, &["a"]).await;
        assert_eq!(commit(&mut end, &["b"]).await, Accepted::Chained, "{is_known}");
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "ab".to_owned()));
    }
}
