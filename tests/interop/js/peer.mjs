// A js-libp2p peer under remote control: one JSON request per line on stdin, answers and events per line on stdout.
//
//   node peer.mjs noise|tls
//   -> {"id": 1, "do": "ping", "address": "/ip4/..."}
//   <- {"id": 1, "result": 2}   or   {"id": 1, "error": "StreamResetError: ..."}
//   <- {"event": "message", ...}
//
// It ends with its stdin.

import './node20.mjs'
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const DEADLINE_MS = 20_000
const STREAMS = { maxInboundStreams: 512, maxOutboundStreams: 512 } // the defaults are 32 and 64 for one protocol

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/tcp/0/ws'] },
  transports: [tcp(), webSockets()],
  connectionEncrypters: [{ noise, tls }[process.argv[2]]()],
  streamMuxers: [yamux()],
  connectionGater: { denyDialMultiaddr: () => false }, // loopback is denied otherwise
  services: { identify: identify(), ping: ping({ timeout: 1000 }), pubsub: gossipsub({ globalSignaturePolicy: 'StrictSign' }) }
})
const { pubsub } = node.services

process.stdout.on('error', () => process.exit(0)) // the test is over
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

/** All that the other side sends until it closes its side. Rejects when the stream is reset or lost. */
function readAll (stream) {
  const all = new Promise((resolve, reject) => {
    const chunks = []
    const finish = () => {
      if (stream.remoteWriteStatus === 'closed' && ['reset', 'aborted'].includes(stream.status)) {
        reject(new Error(`the stream was ${stream.status}`))
      } else {
        resolve(Buffer.concat(chunks))
      }
    }
    stream.addEventListener('message', ({ data }) => { chunks.push(Buffer.from(data.subarray())) })
    stream.addEventListener('end', finish)
    stream.addEventListener('close', finish)
    if (stream.readableEnded) finish()
  })
  all.catch(() => {}) // whoever sends first awaits it later
  return all
}

/** Send in pieces, each when the one before has left. */
async function sendAll (stream, data, piece = 64 * 1024) {
  for (let start = 0; start < data.length; start += piece) {
    if (!stream.send(data.subarray(start, start + piece))) await stream.onDrain()
  }
}

const open = (peer, protocol) => node.dialProtocol(peerIdFromString(peer), protocol, {
  ...STREAMS, signal: AbortSignal.timeout(DEADLINE_MS)
})

async function echo (peer, protocol, size) {
  const data = Buffer.alloc(size, createHash('sha256').update(`${Math.random()}`).digest())
  const stream = await open(peer, protocol)
  const answer = readAll(stream)
  await sendAll(stream, data)
  await stream.close()
  return (await answer).equals(data)
}

const serve = (protocol, handler) => node.handle(protocol, handler, STREAMS)

await serve('/interop/echo', (stream) => {
  stream.addEventListener('message', ({ data }) => stream.send(data))
  stream.addEventListener('end', () => stream.close().catch(() => {}))
})
await serve('/interop/digest', async (stream) => { // answers after the other side has closed its half
  const digest = createHash('sha256').update(await readAll(stream)).digest()
  await sendAll(stream, digest)
  await stream.close()
})
await serve('/interop/reset', (stream) => {
  stream.addEventListener('message', () => stream.abort(new Error('reset as asked')))
})
await serve('/interop/hold', (stream) => { // says ok and waits; the end of the stream is told as an event
  stream.addEventListener('message', ({ data }) => stream.send(data))
  stream.addEventListener('close', ({ error }) => say({ event: 'hold ended', status: stream.status, error: error?.name }))
})

pubsub.addEventListener('gossipsub:message', ({ detail: { propagationSource, msg } }) => say({
  event: 'message',
  topic: msg.topic,
  data: Buffer.from(msg.data).toString(),
  author: msg.from.toString(),
  forwarder: propagationSource.toString()
}))
node.addEventListener('peer:identify', ({ detail }) => say({
  event: 'identified',
  peer: detail.peerId.toString(),
  agent: detail.agentVersion,
  protocols: detail.protocols,
  addresses: detail.listenAddrs.map(String),
  observed: detail.observedAddr?.toString()
}))
node.addEventListener('peer:disconnect', ({ detail }) => say({ event: 'disconnected', peer: detail.toString() }))

const commands = {
  async dial ({ address }) {
    const connection = await node.dial(multiaddr(address), { signal: AbortSignal.timeout(DEADLINE_MS) })
    return { encryption: connection.encryption, muxer: connection.multiplexer }
  },
  hangUp: ({ peer }) => node.hangUp(peerIdFromString(peer)),
  ping: ({ peer }) => node.services.ping.ping(peerIdFromString(peer)),
  connections: () => node.getConnections().map((connection) => ({
    peer: connection.remotePeer.toString(),
    address: connection.remoteAddr.toString(),
    encryption: connection.encryption,
    muxer: connection.multiplexer
  })),
  echo: ({ peer, protocol, size }) => echo(peer, protocol, size),
  async echoes ({ peer, protocol, size, count }) {
    return (await Promise.all(Array.from({ length: count }, () => echo(peer, protocol, size)))).filter(Boolean).length
  },
  async send ({ peer, protocol, data }) { // send, close our half, and return what comes after
    const stream = await open(peer, protocol)
    const answer = readAll(stream)
    await sendAll(stream, Buffer.from(data))
    await stream.close()
    return (await answer).toString('hex')
  },
  async read ({ peer, protocol }) { // send one byte, keep our half open, and return what comes
    const stream = await open(peer, protocol)
    const answer = readAll(stream)
    stream.send(Buffer.from('x'))
    return (await answer).toString()
  },
  async abort ({ peer, protocol }) { // reset a stream that the other side has answered on
    const stream = await open(peer, protocol)
    await new Promise((resolve) => {
      stream.addEventListener('message', resolve)
      stream.send(Buffer.from('x'))
    })
    stream.abort(new Error('reset as asked'))
  },
  subscribe: ({ topic }) => pubsub.subscribe(topic),
  subscribers: ({ topic }) => pubsub.getSubscribers(topic).map(String),
  async publish ({ topic, data }) {
    const { recipients } = await pubsub.publish(topic, Buffer.from(data), { allowPublishToZeroTopicPeers: true })
    return recipients.map(String)
  }
}

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, do: command, ...args } = JSON.parse(line)
  try {
    say({ id, result: await commands[command](args) ?? null })
  } catch (error) {
    say({ id, error: `${error.name}: ${error.message}` })
  }
}).on('close', () => process.exit(0))

say({ event: 'ready', peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
