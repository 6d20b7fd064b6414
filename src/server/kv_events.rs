//! KV events: what the prefix cache gains and loses, published over ZeroMQ in vLLM's frames, so that routers know which
//! replica holds a prefix.
//!
//! A message is three frames: topic, number (8 bytes, big-endian), payload. The payload is MessagePack: `[seconds since
//! 1970, events, rank]`, each event a map tagged by `type`. A ROUTER socket sends again what a late or slow reader has
//! missed: it asks with the number it wants first, and gets every later message that is still there, and then -1.

use super::snapshot::{StepObserver, StepReport};
use crate::engine::BlockEvent;
use crate::llm::Llm;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use zeromq::{PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqError, ZmqMessage};

/// `--kv-events-config`, with vLLM's field names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvEventsConfig {
    /// Whether there are any.
    pub enable_kv_cache_events: bool,
    /// `zmq`, or `null` for none.
    pub publisher: String,
    /// Where subscribers connect to; `*` stands for every address of this machine.
    pub endpoint: String,
    /// Where they ask for what they have missed; `None` for nowhere.
    pub replay_endpoint: Option<String>,
    /// Messages kept for that.
    pub buffer_steps: usize,
    /// Messages on their way to the publisher, at most: later ones are lost, and their numbers missing.
    pub max_queue_size: usize,
    /// First frame of each message.
    pub topic: String,
}

impl Default for KvEventsConfig {
    fn default() -> Self {
        Self {
            enable_kv_cache_events: false,
            publisher: "zmq".into(),
            endpoint: "tcp://127.0.0.1:5557".into(),
            replay_endpoint: None,
            buffer_steps: 10_000,
            max_queue_size: 100_000,
            topic: String::new(),
        }
    }
}

/// What is wrong with [`KvEventsConfig`].
#[derive(Debug, thiserror::Error)]
pub enum KvEventsError {
    /// A publisher that is not known.
    #[error("publisher {0:?}: there is zmq, and null for none")]
    Publisher(String),
    /// A size of 0.
    #[error("{0} is 0: it must be at least 1")]
    Zero(&'static str),
    /// An endpoint that cannot be bound.
    #[error("{endpoint}: {source}")]
    Bind {
        /// Which.
        endpoint: String,
        /// Why.
        source: ZmqError,
    },
}

/// Where events come from, as `/kv_event_sources` tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KvEventSource {
    /// Always 0: one replica is one process.
    pub data_parallel_rank: u32,
    /// Where to connect.
    pub endpoint: String,
    /// Where to ask for missed messages.
    pub replay_endpoint: Option<String>,
    /// First frame of each message.
    pub topic: String,
}

impl KvEventSource {
    /// The same for a client that reaches this machine as `host`, where any address is listened on.
    pub(super) fn seen_from(&self, host: &str) -> Self {
        let seen = |endpoint: &String| endpoint.replace("0.0.0.0", host).replace("[::]", host);
        Self {
            endpoint: seen(&self.endpoint),
            replay_endpoint: self.replay_endpoint.as_ref().map(seen),
            ..self.clone()
        }
    }
}

/// An event on the wire.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
enum WireEvent {
    BlockStored {
        block_hashes: Vec<ByteBuf>,
        parent_block_hash: Option<ByteBuf>,
        token_ids: Vec<u32>,
        block_size: u32,
        lora_id: Option<u32>,
        medium: &'static str,
        lora_name: Option<String>,
    },
    BlockRemoved {
        block_hashes: Vec<ByteBuf>,
        medium: &'static str,
    },
    AllBlocksCleared,
}

const MEDIUM: &str = "GPU";
/// Follows the last message of a replay.
const END: [u8; 8] = (-1_i64).to_be_bytes();

fn wire(event: BlockEvent, block_size: u32) -> WireEvent {
    match event {
        BlockEvent::Stored { hashes, parent, token_ids } => WireEvent::BlockStored {
            block_hashes: hashes.into_iter().map(|hash| ByteBuf::from(hash.0)).collect(),
            parent_block_hash: parent.map(|hash| ByteBuf::from(hash.0)),
            token_ids,
            block_size,
            lora_id: None,
            medium: MEDIUM,
            lora_name: None,
        },
        BlockEvent::Removed { hash } => {
            WireEvent::BlockRemoved { block_hashes: vec![ByteBuf::from(hash.0)], medium: MEDIUM }
        }
        BlockEvent::Cleared => WireEvent::AllBlocksCleared,
    }
}

/// The events of one step.
struct Message {
    number: u64,
    events: Vec<BlockEvent>,
}

/// Takes the events from the scheduler, on the engine's thread.
pub struct KvEventObserver {
    sender: mpsc::Sender<Message>,
    next_number: u64,
    events: Vec<BlockEvent>,
}

impl StepObserver for KvEventObserver {
    fn start(&mut self, llm: &mut Llm) {
        llm.record_block_events();
    }

    fn after_step(&mut self, llm: &mut Llm, _report: &StepReport<'_>) {
        llm.take_block_events(&mut self.events);
        if self.events.is_empty() {
            return;
        }
        let message = Message { number: self.next_number, events: std::mem::take(&mut self.events) };
        self.next_number += 1;
        if self.sender.try_send(message).is_err() {
            tracing::warn!(number = self.next_number - 1, "KV events were lost: the publisher does not keep up");
        }
    }
}

/// Binds the sockets and publishes from now on, on the runtime that this is called on; `None` when events are off. The
/// observer is for [`super::App::start`].
///
/// # Errors
/// When the configuration makes no sense, or an endpoint cannot be bound.
pub async fn publish(
    config: &KvEventsConfig,
    block_size: u32,
) -> Result<Option<(KvEventObserver, KvEventSource)>, KvEventsError> {
    if !config.enable_kv_cache_events || config.publisher == "null" {
        return Ok(None);
    }
    if config.publisher != "zmq" {
        return Err(KvEventsError::Publisher(config.publisher.clone()));
    }
    for (name, size) in [("buffer_steps", config.buffer_steps), ("max_queue_size", config.max_queue_size)] {
        if size == 0 {
            return Err(KvEventsError::Zero(name));
        }
    }
    let mut publisher = PubSocket::new();
    let endpoint = bind(&mut publisher, &config.endpoint).await?;
    let mut replay_endpoint = None;
    let mut replay = None;
    if let Some(asked) = &config.replay_endpoint {
        let mut socket = RouterSocket::new();
        replay_endpoint = Some(bind(&mut socket, asked).await?);
        replay = Some(socket);
    }
    let (sender, receiver) = mpsc::channel(config.max_queue_size);
    let source = KvEventSource { data_parallel_rank: 0, endpoint, replay_endpoint, topic: config.topic.clone() };
    let topic = Bytes::from(config.topic.clone().into_bytes());
    let buffer = Buffer { kept: VecDeque::new(), most: config.buffer_steps };
    tokio::spawn(run(publisher, replay, receiver, topic, block_size, buffer));
    let observer = KvEventObserver { sender, next_number: 0, events: Vec::new() };
    Ok(Some((observer, source)))
}

async fn bind(socket: &mut impl Socket, endpoint: &str) -> Result<String, KvEventsError> {
    let concrete = endpoint.replacen("//*:", "//0.0.0.0:", 1);
    let bound = socket.bind(&concrete).await;
    bound.map(|bound| bound.to_string()).map_err(|source| KvEventsError::Bind { endpoint: endpoint.to_owned(), source })
}

/// The last messages.
struct Buffer {
    kept: VecDeque<(u64, Bytes)>,
    most: usize,
}

impl Buffer {
    fn push(&mut self, number: u64, payload: Bytes) {
        if self.kept.len() == self.most {
            self.kept.pop_front();
        }
        self.kept.push_back((number, payload));
    }
}

/// Publishes what comes, and answers who asks again, until the engine ends.
async fn run(
    mut publisher: PubSocket,
    mut replay: Option<RouterSocket>,
    mut receiver: mpsc::Receiver<Message>,
    topic: Bytes,
    block_size: u32,
    mut buffer: Buffer,
) {
    loop {
        let asked = async {
            match &mut replay {
                Some(socket) => socket.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = receiver.recv() => {
                let Some(Message { number, events }) = message else { return };
                let payload = Bytes::from(payload(events, block_size));
                buffer.push(number, payload.clone());
                let frames = vec![topic.clone(), Bytes::copy_from_slice(&number.to_be_bytes()), payload];
                let frames = ZmqMessage::try_from(frames).expect("three frames");
                if let Err(error) = publisher.send(frames).await {
                    tracing::warn!(%error, "KV events could not be published");
                }
            }
            request = asked => {
                if let (Ok(request), Some(socket)) = (request, &mut replay) {
                    answer(socket, &request.into_vec(), &buffer).await;
                }
            }
        }
    }
}

fn payload(events: Vec<BlockEvent>, block_size: u32) -> Vec<u8> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let events: Vec<WireEvent> = events.into_iter().map(|event| wire(event, block_size)).collect();
    rmp_serde::to_vec_named(&(seconds, events, 0)).expect("plain data")
}

/// `request` is the client's identity, an empty frame if it is a REQ socket, and the number it wants first.
async fn answer(socket: &mut RouterSocket, request: &[Bytes], buffer: &Buffer) {
    let Some((first, envelope)) = request.split_last() else { return };
    let Ok(first) = <[u8; 8]>::try_from(&first[..]) else { return };
    let first = u64::from_be_bytes(first);
    let missed = buffer.kept.iter().filter(|(number, _)| *number >= first);
    let messages = missed.map(|(number, payload)| (number.to_be_bytes(), payload.clone()));
    for (number, payload) in messages.chain([(END, Bytes::new())]) {
        let mut frames = envelope.to_vec();
        frames.extend([Bytes::copy_from_slice(&number), payload]);
        let frames = ZmqMessage::try_from(frames).expect("at least two frames");
        // A client that has gone needs no answer.
        if socket.send(frames).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BlockHash;

    #[test]
    fn events_are_tagged_maps() {
        let stored = BlockEvent::Stored { hashes: vec![BlockHash([7; 32])], parent: None, token_ids: vec![1, 2] };
        let bytes = payload(vec![stored, BlockEvent::Cleared], 2);
        // An array of three, a float, an array of two, a map of eight fields that begins with its type.
        assert_eq!((bytes[0], bytes[1], bytes[10], bytes[11]), (0x93, 0xcb, 0x92, 0x88));
        assert_eq!(&bytes[12..29], b"\xa4type\xabBlockStored");
        let hash = [&b"\xacblock_hashes\x91\xc4\x20"[..], &[7; 32]].concat();
        assert_eq!(&bytes[29..29 + hash.len()], &hash);
        assert!(bytes.ends_with(b"\x81\xa4type\xb0AllBlocksCleared\x00"));
    }

    #[test]
    fn the_buffer_keeps_the_last() {
        let mut buffer = Buffer { kept: VecDeque::new(), most: 2 };
        (0..5).for_each(|number| buffer.push(number, Bytes::new()));
        assert_eq!(buffer.kept.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn any_address_is_told_as_the_client_knows_it() {
        let source = KvEventSource {
            data_parallel_rank: 0,
            endpoint: "tcp://0.0.0.0:5557".into(),
            replay_endpoint: None,
            topic: String::new(),
        };
        assert_eq!(source.seen_from("10.1.2.3").endpoint, "tcp://10.1.2.3:5557");
    }
}
