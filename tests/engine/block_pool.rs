//! The free queue and the pool.

use bindery::engine::{BlockId, BlockPool, FreeQueue};

fn order(queue: &FreeQueue) -> Vec<u32> {
    queue.iter().map(|block| block.0).collect()
}

#[test]
fn free_queue_initialization() {
    let mut queue = FreeQueue::full(1);
    assert_eq!((queue.len(), order(&queue)), (1, vec![0]));
    assert_eq!(queue.pop_front(), Some(BlockId(0)));
    assert!(queue.is_empty() && queue.pop_front().is_none());
}

#[test]
fn free_queue_operations() {
    let mut queue = FreeQueue::full(5);
    assert_eq!(order(&queue), [0, 1, 2, 3, 4]);
    assert_eq!(queue.pop_front(), Some(BlockId(0)));
    queue.remove(BlockId(2));
    assert_eq!(order(&queue), [1, 3, 4]);
    assert!(!queue.contains(BlockId(2)) && queue.contains(BlockId(3)));
    queue.push_back(BlockId(0));
    queue.push_front(BlockId(2));
    assert_eq!((queue.len(), order(&queue)), (5, vec![2, 1, 3, 4, 0]));
    queue.remove(BlockId(0));
    queue.remove(BlockId(2));
    assert_eq!(order(&queue), [1, 3, 4]);
    for block in [1, 3, 4] {
        assert_eq!(queue.pop_front(), Some(BlockId(block)));
    }
    assert!(queue.is_empty());
    queue.push_front(BlockId(4));
    assert_eq!(order(&queue), [4]);
}

#[test]
#[should_panic(expected = "is not in the free queue")]
fn free_queue_refuses_to_remove_twice() {
    let mut queue = FreeQueue::full(3);
    queue.remove(BlockId(1));
    queue.remove(BlockId(1));
}

#[test]
#[should_panic(expected = "already in the free queue")]
fn free_queue_refuses_a_block_twice() {
    FreeQueue::full(3).push_back(BlockId(1));
}

#[test]
fn pool_counts_references() {
    let mut pool = BlockPool::new(2);
    let block = pool.allocate().expect("two are free");
    pool.share(block);
    assert_eq!((pool.ref_count(block), pool.num_free()), (2, 1));
    assert!(!pool.release(block));
    assert!(pool.release(block));
    pool.enqueue(block, true);
    assert_eq!(pool.free_blocks().collect::<Vec<_>>(), [BlockId(1), BlockId(0)]);
    // A free block can be taken back from the middle of the queue.
    pool.share(block);
    assert_eq!((pool.ref_count(block), pool.num_free()), (1, 1));
    pool.check_invariants();
    assert_eq!(pool.allocate(), Some(BlockId(1)));
    assert_eq!(pool.allocate(), None);
}

#[test]
#[should_panic(expected = "I2: block 0 released once too often")]
fn pool_refuses_a_double_release() {
    let mut pool = BlockPool::new(1);
    let block = pool.allocate().expect("one is free");
    for _ in 0..2 {
        let _ = pool.release(block);
    }
}
