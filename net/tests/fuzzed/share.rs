//! Shares: read without a panic, written as they were read, and fit to be judged.

use rockpool_net::id::ShareId;
use rockpool_net::limits::{SHARE_BYTES_MAX, SHARE_BYTES_MIN};
use rockpool_net::wire::share::Share;

/// All of it is one share.
pub fn share(data: &[u8]) {
    let Ok(share) = Share::decode(data) else { return };
    assert_eq!(share.encode(), data);
    assert!((SHARE_BYTES_MIN..=SHARE_BYTES_MAX).contains(&data.len()) && share.check_limits().is_ok());
    // What a verifier asks first, of bytes from anyone.
    let genesis = ShareId::default();
    assert_eq!(share.id(), share.clone().id());
    let _ = (share.commitment(&genesis), share.tied(&genesis), share.merkle_root());
}
