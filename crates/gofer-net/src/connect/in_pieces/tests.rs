use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use tokio::io::AsyncWriteExt;

use super::*;

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What one read gives, and whether the reader is to come back at once.
fn read(stream: &mut InPieces, most: usize) -> (Option<Vec<u8>>, bool) {
    let woken = Arc::new(Woken::default());
    let mut bytes = vec![0; most];
    let mut buffer = ReadBuf::new(&mut bytes);
    let polled = Pin::new(stream)
        .poll_read(&mut Context::from_waker(&Arc::clone(&woken).into()), &mut buffer);
    let read = buffer.filled().to_vec();
    let read = match polled {
        Poll::Ready(outcome) => outcome.map(|()| Some(read)).unwrap(),
        Poll::Pending => {
            assert_eq!(read, []);
            None
        }
    };
    (read, woken.0.load(Ordering::Relaxed))
}

#[tokio::test]
async fn between_two_pieces_others_have_their_turn() {
    const ALL: usize = 2 * PIECE_BYTES + 10;
    let (stream, mut peer) = tokio::io::duplex(ALL);
    let mut stream = InPieces::new(Box::new(stream));
    let sent: Vec<u8> = (0..=250).cycle().take(ALL).collect();
    peer.write_all(&sent).await.unwrap();
    let (first, rest) = sent.split_at(PIECE_BYTES);
    let (second, last) = rest.split_at(PIECE_BYTES);
    let (start, end) = first.split_at(100);
    assert_eq!(read(&mut stream, 100), (Some(start.to_vec()), false));
    assert_eq!(read(&mut stream, ALL), (Some(end.to_vec()), false));
    assert_eq!(read(&mut stream, ALL), (None, true));
    assert_eq!(read(&mut stream, ALL), (Some(second.to_vec()), false));
    assert_eq!(read(&mut stream, ALL), (None, true));
    assert_eq!(read(&mut stream, ALL), (Some(last.to_vec()), false));
    // Nothing is there, so what follows is a piece of its own.
    assert_eq!(read(&mut stream, ALL), (None, false));
    peer.write_all(first).await.unwrap();
    assert_eq!(read(&mut stream, ALL), (Some(first.to_vec()), false));
    drop(peer);
    assert_eq!(read(&mut stream, ALL), (None, true));
    assert_eq!(read(&mut stream, ALL), (Some(vec![]), false));
}
