//! Prefix caching through the scheduler: who hits what, and who must not.

use bindery::engine::{BlockHash, ExtraKeys, RequestParams, SchedulerConfig};

use super::{Driver, config, max_tokens, seq};

fn caching() -> SchedulerConfig {
    SchedulerConfig { enable_prefix_caching: true, ..config() }
}

#[test]
fn test_prefix_caching_for_prefill_dedup() {
    let mut driver = Driver::new(caching());
    driver.add(0, (0..100).collect(), max_tokens(3));
    driver.add(1, (0..100).collect(), max_tokens(3));
    // Both in one step: the second finds the six full blocks that the first is about to write.
    let (batch, scheduled) = driver.schedule();
    assert_eq!(scheduled, [(0, 100), (1, 4)]);
    assert_eq!(batch.block_tables[..6], batch.block_tables[7..13]);
    driver.update(|_| 0);
    driver.drain();
    let stats = driver.scheduler.stats();
    assert_eq!((stats.prefix_query_tokens, stats.prefix_hit_tokens), (200, 96));
}

#[test]
fn test_prefix_caching_for_multi_turn() {
    let mut driver = Driver::new(caching());
    driver.add(0, (0..300).collect(), max_tokens(20));
    driver.drain();
    // The last token was never computed: 319 tokens are in the KV cache, 19 blocks of them are full.
    let turn: Vec<u32> = (0..300).chain([0; 20]).chain(1000..1010).collect();
    driver.add(1, turn.clone(), max_tokens(1));
    let (_, scheduled) = driver.schedule();
    assert_eq!(scheduled, [(1, 330 - 304)]);
    assert_eq!(driver.scheduler.accounting(seq(1).request).map(|cost| cost.cached_tokens), Some(304));
    driver.update(|_| 0);
    // The same turn again leaves what does not fill a block, and at least one token.
    driver.add(2, turn[..320].to_vec(), max_tokens(1));
    assert_eq!(driver.step(), [(2, 16)]);
}

#[test]
fn test_cache_key_salting() {
    let salted = |salt: &str| RequestParams { cache_salt: Some(salt.into()), ..max_tokens(1) };
    let prompt: Vec<u32> = (0..59).collect();
    let mut driver = Driver::new(caching());
    driver.add(0, prompt.clone(), salted("salt 1"));
    assert_eq!(driver.step(), [(0, 59)]);
    driver.add(1, prompt.clone(), salted("salt 1"));
    assert_eq!(driver.step(), [(1, 59 - 48)]);
    driver.add(2, prompt.clone(), salted("salt 2"));
    assert_eq!(driver.step(), [(2, 59)]);
    driver.add(3, prompt, max_tokens(1));
    assert_eq!(driver.step(), [(3, 59)]);
}

#[test]
fn test_lora_name_and_cache_salt_block_hashes_do_not_collide() {
    let keys = ExtraKeys { model: b"m", adapter: None, cache_salt: None };
    let name: &[u8] = b"name";
    let roots = [
        BlockHash::root(keys),
        BlockHash::root(ExtraKeys { adapter: Some(name), ..keys }),
        BlockHash::root(ExtraKeys { cache_salt: Some(name), ..keys }),
        BlockHash::root(ExtraKeys { cache_salt: Some(b""), ..keys }),
        BlockHash::root(ExtraKeys { model: b"mname", ..keys }),
        BlockHash::root(ExtraKeys { adapter: Some(b"names\x04\0\0\0\0\0\0\0name"), ..keys }),
        BlockHash::root(ExtraKeys { adapter: Some(name), cache_salt: Some(name), ..keys }),
    ];
    for (i, root) in roots.iter().enumerate() {
        assert!(!roots[i + 1..].contains(root), "root {i} collides");
    }
}

#[test]
fn test_prefill_plp() {
    let mut driver = Driver::new(caching());
    let prompt: Vec<u32> = (0..55).collect();
    let with_logits = RequestParams { prompt_logits: true, ..max_tokens(1) };
    driver.add(0, prompt.clone(), with_logits.clone());
    assert_eq!(driver.step(), [(0, 55)]);
    // Its blocks serve others, but a request that wants prompt logits computes its prompt itself.
    driver.add(1, prompt.clone(), max_tokens(1));
    assert_eq!(driver.step(), [(1, 55 - 48)]);
    driver.add(2, prompt, with_logits);
    let (batch, scheduled) = driver.schedule();
    assert_eq!((scheduled, batch.logits_indices.len()), (vec![(2, 55)], 55));
    driver.update(|_| 0);
}

#[test]
fn blocks_of_running_requests_are_shared() {
    let mut driver = Driver::new(caching());
    driver.add(0, (0..40).collect(), max_tokens(100));
    driver.step();
    driver.add(1, (0..40).collect(), max_tokens(100));
    assert_eq!(driver.step(), [(0, 1), (1, 8)]);
    let tables = [0, 1].map(|id| driver.scheduler.block_table(seq(id)).expect("it runs").to_vec());
    assert_eq!(tables[0][..2], tables[1][..2]);
    assert_ne!(tables[0][2], tables[1][2]);
}

#[test]
fn reset_is_refused_while_blocks_are_in_use() {
    let mut driver = Driver::new(caching());
    driver.add(0, (0..40).collect(), max_tokens(2));
    driver.step();
    assert!(!driver.scheduler.reset_prefix_cache());
    driver.drain();
    assert_eq!(driver.scheduler.stats().cached_blocks, 2);
    assert!(driver.scheduler.reset_prefix_cache());
    assert_eq!(driver.scheduler.stats().cached_blocks, 0);
    driver.add(1, (0..40).collect(), max_tokens(2));
    assert_eq!(driver.step(), [(1, 40)]);
}
