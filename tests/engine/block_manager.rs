//! Block tables and prefix hits, case by case (vLLM: test_prefix_caching.py; our block ids are theirs minus 1).

use bindery::engine::{
    BlockCopy, BlockHash, BlockId, BlockManager, BlockTable, ExtraKeys, FullBlock, PrefixCache, Sequence,
};

use super::{Blocks, common_prefix_and};

#[test]
fn test_prefill() {
    let mut blocks = Blocks::new(10, true);
    let (req0, hits, new) = blocks.start(common_prefix_and(3, 7));
    assert_eq!((hits, new), (vec![], vec![0, 1, 2, 3]));
    let mut parent = Blocks::root(None);
    for (i, tokens) in req0.token_ids.chunks_exact(16).enumerate() {
        parent = parent.child(tokens);
        assert_eq!(blocks.manager.prefix().and_then(|prefix| prefix.hash_of(BlockId(i as u32))), Some(parent));
    }
    assert!(!blocks.cached(3));
    assert_eq!(blocks.ref_counts(&[0, 1, 2, 3]), [1, 1, 1, 1]);

    // A hit while the blocks are in use.
    let (req1, hits, new) = blocks.start(common_prefix_and(3, 5));
    assert_eq!((hits, new), (vec![0, 1, 2], vec![4]));
    assert_eq!(blocks.ref_counts(&[0, 1, 2]), [2, 2, 2]);
    assert_eq!(blocks.manager.pool().num_free(), 5);

    // Blocks that cannot be found again go to the front, tails before heads.
    blocks.free(req0);
    blocks.free(req1);
    assert_eq!(blocks.free_order(), [4, 3, 5, 6, 7, 8, 9, 2, 1, 0]);

    // A hit while the blocks are free.
    let (req2, hits, new) = blocks.start(common_prefix_and(3, 6));
    assert_eq!((hits, new), (vec![0, 1, 2], vec![4]));
    assert_eq!(blocks.manager.pool().num_free(), 6);
    blocks.free(req2);

    // A miss takes everything, in the order of eviction.
    let (_req3, hits, new) = blocks.start(vec![99; 160]);
    assert_eq!((hits, new), (vec![], vec![4, 3, 5, 6, 7, 8, 9, 2, 1, 0]));
    assert_eq!(blocks.manager.pool().num_free(), 0);
}

#[test]
fn test_decode() {
    let mut blocks = Blocks::new(10, true);
    let (mut req0, _, new) = blocks.start(common_prefix_and(3, 7));
    assert_eq!(new, [0, 1, 2, 3]);
    let root = Blocks::root(None);

    req0.token_ids.extend([8; 4]);
    assert_eq!(blocks.allocate(&mut req0, &root), Some(vec![]));
    assert!(!blocks.cached(3));

    req0.token_ids.extend([7; 19]);
    assert_eq!(blocks.allocate(&mut req0, &root), Some(vec![4]));
    assert!(blocks.cached(3) && !blocks.cached(4));
}

#[test]
fn test_evict() {
    let mut blocks = Blocks::new(10, true);
    let (req0, _, new) = blocks.start((0..87).collect());
    assert_eq!(new.len(), 6);
    let (req1, _, new) = blocks.start((87..135).collect());
    assert_eq!(new.len(), 3);
    assert_eq!(blocks.manager.pool().num_free(), 1);
    blocks.free(req0);
    assert_eq!(blocks.free_order(), [5, 9, 4, 3, 2, 1, 0]);
    blocks.free(req1);
    assert_eq!(blocks.free_order(), [5, 9, 4, 3, 2, 1, 0, 8, 7, 6]);
    let (_req2, hits, new) = blocks.start((0..35).collect());
    assert_eq!((hits, new), (vec![0, 1], vec![5]));
    assert_eq!(blocks.manager.pool().num_free(), 7);
}

#[test]
fn test_hash_block_correct_reuse() {
    let mut blocks = Blocks::new(1, true);
    let (req0, _, _) = blocks.start((0..16).collect());
    assert!(blocks.cached(0));
    blocks.free(req0);
    assert!(blocks.cached(0), "a free block keeps its contents");
    let (_req1, _, new) = blocks.start((0..15).collect());
    assert_eq!(new, [0]);
    assert!(!blocks.cached(0), "a block that is handed out again has lost them");
}

#[test]
fn test_computed_blocks_not_evicted() {
    let mut blocks = Blocks::new(2, true);
    let (req0, _, new) = blocks.start((0..16).collect());
    assert_eq!(new, [0]);
    let (req1, _, new) = blocks.start((16..32).collect());
    assert_eq!(new, [1]);
    blocks.free(req0);
    blocks.free(req1);
    // Block 0 would be next to be evicted, but it is the one that is hit.
    let (_req2, hits, new) = blocks.start((0..32).collect());
    assert_eq!((hits, new), (vec![0], vec![1]));
}

#[test]
fn test_basic_prefix_caching_disabled() {
    let mut blocks = Blocks::new(4, false);
    let (req1, hits, new) = blocks.start((0..10).cycle().take(64).collect());
    assert_eq!((hits.len(), new.len()), (0, 4));
    blocks.free(req1);
    assert_eq!(blocks.free_order(), [3, 2, 1, 0]);
    let (_req2, hits, new) = blocks.start((0..10).cycle().take(48).collect());
    assert_eq!((hits.len(), new.len()), (0, 3));
    let mut req3 = Sequence::new(0, vec![1; 32]);
    assert_eq!(blocks.allocate(&mut req3, &Blocks::root(None)), None);
    assert!(req3.table.is_empty());
}

#[test]
fn test_prefill_not_enough_free_blocks_with_computed_blocks() {
    let mut blocks = Blocks::new(10, true);
    let common = common_prefix_and(0, 0);
    let (req0, _, new) = blocks.start(common.clone());
    assert_eq!(new, [0, 1, 2]);
    // The second request shares them, and goes on for three blocks more.
    let longer: Vec<u32> = common.iter().map(|token| token + 100).chain(common.iter().copied()).collect();
    let (req1, _, new1) = blocks.start([common.clone(), longer[..48].to_vec()].concat());
    assert_eq!(new1, [3, 4, 5]);
    blocks.free(req1.clone());
    assert_eq!(blocks.ref_counts(&[0, 1, 2, 3, 4, 5]), [1, 1, 1, 0, 0, 0]);
    // Someone else takes two blocks; two others and the three free hits are left.
    let (_req2, _, _) = blocks.start(vec![7; 32]);
    assert_eq!(blocks.manager.pool().num_free(), 5);

    let mut req3 = Sequence::new(0, [common, longer[..48].to_vec(), vec![9; 48]].concat());
    let root = Blocks::root(None);
    assert_eq!(blocks.find(&mut req3, &root), [0, 1, 2, 3, 4, 5]);
    let free = blocks.free_order();
    assert_eq!(blocks.allocate(&mut req3, &root), None, "three new blocks are needed, two are left");
    assert_eq!(blocks.ref_counts(&[0, 1, 2, 3, 4, 5]), [1, 1, 1, 0, 0, 0], "a failure changes nothing");
    assert_eq!(blocks.free_order(), free);
    assert!(req3.table.is_empty());
    blocks.free(req0);
}

#[test]
fn test_reset_prefix_cache() {
    let mut blocks = Blocks::new(10, true);
    let (req0, _, _) = blocks.start(common_prefix_and(3, 7));
    let (req1, hits, new) = blocks.start(common_prefix_and(4, 7));
    assert_eq!((hits, new), (vec![0, 1, 2], vec![4]));
    assert!(!blocks.manager.reset_prefix_cache(), "blocks are in use");
    assert!(blocks.cached(0));
    blocks.free(req0);
    blocks.free(req1);
    assert!(blocks.manager.reset_prefix_cache());
    assert!((0..10).all(|block| !blocks.cached(block)));
    assert_eq!(blocks.manager.prefix().map(PrefixCache::num_cached), Some(0));
}

#[test]
fn at_least_one_token_is_left_to_compute() {
    let mut blocks = Blocks::new(10, true);
    blocks.start((0..32).collect());
    let mut again = Sequence::new(0, (0..32).collect());
    assert_eq!(blocks.find(&mut again, &Blocks::root(None)), [0]);
    let mut longer = Sequence::new(0, (0..33).collect());
    assert_eq!(blocks.find(&mut longer, &Blocks::root(None)), [0, 1]);
}

fn full(hash: BlockHash, parent: BlockHash, token_ids: &[u32]) -> FullBlock<'_> {
    FullBlock { hash, parent, is_first: false, token_ids }
}

#[test]
fn test_maybe_evict_cached_block() {
    let hash = |byte| BlockHash([byte; 32]);
    let parent = hash(0);
    let tokens = [1, 2, 3, 4];
    let mut prefix = PrefixCache::new(4, 4);
    // Blocks 0 and 3 hold the same tokens under one hash.
    for (block, name) in [(0, 10), (1, 20), (2, 30), (3, 10)] {
        assert_eq!(
            prefix.insert(BlockId(block), &full(hash(name), parent, &tokens)),
            block != 3,
            "first under its hash"
        );
    }
    let find = |prefix: &PrefixCache, name| prefix.find(&hash(name), &parent, &tokens).map(|block| block.0);
    assert_eq!([10, 20, 30].map(|name| find(&prefix, name)), [Some(0), Some(1), Some(2)]);
    prefix.remove(BlockId(1));
    assert_eq!([10, 20, 30].map(|name| find(&prefix, name)), [Some(0), None, Some(2)]);
    prefix.remove(BlockId(0));
    assert_eq!([10, 20, 30].map(|name| find(&prefix, name)), [Some(3), None, Some(2)]);
    prefix.remove(BlockId(2));
    prefix.remove(BlockId(3));
    assert_eq!([10, 20, 30].map(|name| find(&prefix, name)), [None; 3]);
    assert_eq!(prefix.num_cached(), 0);
}

#[test]
fn three_blocks_under_one_hash_leave_in_any_order() {
    let (hash, parent, tokens) = (BlockHash([1; 32]), BlockHash([0; 32]), [5]);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut prefix = PrefixCache::new(3, 1);
        let firsts = [0, 1, 2].map(|block| prefix.insert(BlockId(block), &full(hash, parent, &tokens)));
        assert_eq!(firsts, [true, false, false]);
        for (gone, &block) in order.iter().enumerate() {
            let first = order[gone..].iter().min().copied();
            assert_eq!(prefix.find(&hash, &parent, &tokens).map(|block| block.0), first);
            let last = gone + 1 == order.len();
            assert_eq!(prefix.remove(BlockId(block)).is_some(), last, "the last under its hash");
        }
        assert_eq!(prefix.find(&hash, &parent, &tokens), None);
    }
}

#[test]
fn tokens_are_compared_on_a_hit() {
    let (hash, parent) = (BlockHash([1; 32]), BlockHash([0; 32]));
    let mut prefix = PrefixCache::new(2, 2);
    prefix.insert(BlockId(0), &full(hash, parent, &[1, 2]));
    prefix.insert(BlockId(1), &full(hash, parent, &[3, 4]));
    assert_eq!(prefix.find(&hash, &parent, &[3, 4]), Some(BlockId(1)));
    assert_eq!(prefix.find(&hash, &parent, &[5, 6]), None, "a collision is a miss");
    assert_eq!(prefix.find(&hash, &hash, &[1, 2]), None, "another parent is a miss");
}

#[test]
fn a_shared_partial_block_is_copied_by_whoever_writes_first() {
    let mut manager = BlockManager::new(4, 16, false);
    let mut parent = BlockTable::default();
    manager.reserve(&mut parent, &[], 0, 20).expect("two blocks are free");
    let mut child = manager.fork(&parent);
    assert_eq!(manager.pool().ref_counts(), [2, 2, 0, 0]);

    let reserved = manager.reserve(&mut child, &[], 20, 21).expect("one block is free");
    assert_eq!(reserved.copy, Some(BlockCopy { src: BlockId(1), dst: BlockId(2) }));
    assert_eq!((child.blocks(), reserved.allocated), (&[BlockId(0), BlockId(2)][..], 1));
    // The last holder writes in place.
    assert_eq!(manager.reserve(&mut parent, &[], 20, 21).and_then(|reserved| reserved.copy), None);
    assert_eq!(manager.pool().ref_counts(), [2, 1, 1, 0]);

    manager.free(&mut parent);
    manager.free(&mut child);
    assert_eq!(manager.pool().num_free(), 4);
}

#[test]
fn a_full_shared_block_is_never_copied() {
    let mut manager = BlockManager::new(4, 16, false);
    let mut parent = BlockTable::default();
    manager.reserve(&mut parent, &[], 0, 16).expect("a block is free");
    let mut child = manager.fork(&parent);
    let reserved = manager.reserve(&mut child, &[], 16, 17).expect("a block is free");
    assert_eq!((reserved.copy, child.blocks()), (None, &[BlockId(0), BlockId(1)][..]));
}

#[test]
fn a_copy_that_does_not_fit_changes_nothing() {
    let mut manager = BlockManager::new(1, 16, false);
    let mut parent = BlockTable::default();
    manager.reserve(&mut parent, &[], 0, 3).expect("a block is free");
    let mut child = manager.fork(&parent);
    assert_eq!(manager.reserve(&mut child, &[], 3, 4), None);
    assert_eq!((child, manager.pool().ref_counts()), (parent, &[2][..]));
}

#[test]
fn test_cache_blocks() {
    let mut blocks = Blocks::new(5, true);
    let root = Blocks::root(None);
    let mut seq = Sequence::new(0, (0..33).collect());
    blocks.allocate(&mut seq, &root).expect("three blocks are free");
    let num_cached = |blocks: &Blocks| blocks.manager.prefix().expect("it is enabled").num_cached();
    assert_eq!((num_cached(&blocks), blocks.cached(2)), (2, false), "only full blocks");
    seq.token_ids.extend(33..48);
    blocks.allocate(&mut seq, &root).expect("nothing is needed");
    assert_eq!((num_cached(&blocks), blocks.cached(2)), (3, true));
}

#[test]
fn test_hash_block_tokens() {
    let root = Blocks::root(None);
    let hash = root.child(&[1, 2, 3]);
    assert_eq!(hash, root.child(&[1, 2, 3]));
    for other in [root.child(&[1, 2, 4]), root.child(&[1, 2]), hash.child(&[1, 2, 3])] {
        assert_ne!(hash, other);
    }
}

#[test]
fn test_request_block_hasher() {
    let root = Blocks::root(None);
    let mut seq = Sequence::new(0, (0..40).collect());
    seq.extend_hashes(2, &root, 16);
    let first = root.child(&(0..16).collect::<Vec<u32>>());
    assert_eq!(seq.hashes, [first, first.child(&(16..32).collect::<Vec<u32>>())]);
    // More tokens only add hashes.
    let before = seq.hashes.clone();
    seq.token_ids.extend(40..48);
    seq.extend_hashes(3, &root, 16);
    assert_eq!((&seq.hashes[..2], seq.hashes.len()), (&before[..], 3));
}

/// There is no null hash: the first block's parent is the root, which depends on everything but the tokens.
#[test]
fn test_null_parent_block_hash() {
    let (plain, salted) = (Blocks::root(None), Blocks::root(Some("salt")));
    let of_model = |model: &[u8]| BlockHash::root(ExtraKeys { model, adapter: None, cache_salt: None });
    assert_eq!(plain, of_model(b"test model"));
    assert_ne!(plain, salted);
    assert_ne!(plain, of_model(b"another model"));
    assert_ne!(plain.child(&[1]), salted.child(&[1]));
}

/// Free blocks that are hit are counted once as hits, and not again as free blocks for what is new.
#[test]
fn test_evictable_cached_blocks_not_double_allocated() {
    let root = Blocks::root(None);
    for (tokens, fits) in [(80, true), (81, false)] {
        let mut blocks = Blocks::new(5, true);
        let (seq, _, _) = blocks.start((0..48).collect());
        blocks.free(seq);
        let mut next = Sequence::new(0, (0..tokens).collect());
        assert_eq!(blocks.find(&mut next, &root), [0, 1, 2]);
        assert_eq!(blocks.manager.num_free_besides(&[0, 1, 2].map(BlockId)), 2);
        assert_eq!(blocks.allocate(&mut next, &root), fits.then(|| vec![3, 4]));
        if !fits {
            assert_eq!((blocks.ref_counts(&[0, 1, 2]), blocks.manager.pool().num_free()), (vec![0; 3], 5));
        }
    }
}
