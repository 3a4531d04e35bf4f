// Uses ioredis or node-redis as an application would: `node client.mjs ioredis|redis PORT`.
// Prints RESTART when the server may be restarted, and goes on when a line comes back.

import readline from 'node:readline';

const [, , library, portText] = process.argv;
const port = Number(portText);
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
let passed = 0;
let failed = 0;

function check(name, holds, detail = '') {
  if (holds) {
    passed += 1;
  } else {
    failed += 1;
    console.log(`FAILED ${library}: ${name} ${detail}`);
  }
}

function equal(name, found, expected) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(expected)];
  check(name, left === right, `found ${left}, expected ${right}`);
}

async function rejects(name, promise, pattern) {
  try {
    check(name, false, `resolved with ${await promise}`);
  } catch (error) {
    check(name, pattern.test(error.message), error.message);
  }
}

async function restartServer() {
  console.log('RESTART');
  await lines.next();
}

// A client that reconnects by itself answers again within a bounded time.
async function answersAgain(ask) {
  const deadline = Date.now() + 15000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

async function useIoredis() {
  const { default: Redis } = await import('ioredis');
  const client = new Redis(port, { showFriendlyErrorStack: false });
  client.on('error', () => {}); // the restart below is expected
  equal('ping', await client.ping(), 'PONG');
  equal('set', await client.set('io:k', 'v'), 'OK');
  equal('get', await client.get('io:k'), 'v');
  equal('get of nothing', await client.get('io:none'), null);
  equal('set with options', await client.set('io:k', 'w', 'EX', 100, 'NX'), null);
  equal('set with GET', await client.set('io:k', 'x', 'PX', 100000, 'GET'), 'v');
  check('ttl', (await client.ttl('io:k')) > 90);
  equal('mset of an object', await client.mset({ 'io:a': 1, 'io:b': 2 }), 'OK');
  equal('mget', await client.mget('io:a', 'io:none', 'io:b'), ['1', null, '2']);
  equal('incrby', await client.incrby('io:n', 5), 5);
  equal('incrbyfloat', await client.incrbyfloat('io:f', 1.5), '1.5');
  const bytes = Buffer.from([0, 255, 13, 10]);
  await client.set('io:bin', bytes);
  check('binary', bytes.equals(await client.getBuffer('io:bin')));
  const unicode = 'grün \u{1F980}';
  await client.set('io:uni', unicode);
  equal('unicode', await client.get('io:uni'), unicode);
  await rejects('an error reply', client.incr('io:uni'), /not an integer/);
  await rejects('an unknown command', client.call('NOSUCH', 'x'), /unknown command/i);

  const results = await client.pipeline().set('io:p', '1').incr('io:p').get('io:p').incr('io:uni').exec();
  equal('pipeline', results.slice(0, 3), [[null, 'OK'], [null, 2], [null, '2']]);
  check('pipeline error', /not an integer/.test(results[3][0].message));

  const auto = new Redis(port, { enableAutoPipelining: true });
  const many = await Promise.all(Array.from({ length: 500 }, (_, i) => auto.set(`io:auto:${i}`, i)));
  equal('auto-pipelined sets', many.filter((reply) => reply === 'OK').length, 500);
  const values = await Promise.all(Array.from({ length: 500 }, (_, i) => auto.get(`io:auto:${i}`)));
  check('auto-pipelined gets', values.every((value, i) => value === String(i)));
  await auto.quit();

  const seen = new Set();
  for await (const keys of client.scanStream({ match: 'io:auto:*', count: 50 })) {
    keys.forEach((key) => seen.add(key));
  }
  equal('scan stream', seen.size, 500);

  await client.set('io:short', 'v', 'PX', 20);
  const gone = Date.now() + 5000;
  while ((await client.exists('io:short')) && Date.now() < gone);
  equal('expiry', await client.exists('io:short'), 0);
  check('info', (await client.info()).includes('redis_version:'));

  const other = new Redis(port, { db: 3, keyPrefix: 'pre:' });
  await other.set('k', 'v');
  equal('database and prefix', await other.get('k'), 'v');
  equal('another database', await client.get('pre:k'), null);
  other.disconnect();

  await restartServer();
  equal('data after a restart', await answersAgain(() => client.get('io:k')), 'x');
  equal('writes after a restart', await client.incr('io:n'), 6);
  equal('quit', await client.quit(), 'OK');
}

async function useNodeRedis() {
  const { createClient } = await import('redis');
  const client = createClient({ socket: { port } });
  client.on('error', () => {}); // the restart below is expected
  await client.connect();
  equal('ping', await client.ping(), 'PONG');
  equal('set', await client.set('nr:k', 'v'), 'OK');
  equal('get', await client.get('nr:k'), 'v');
  equal('get of nothing', await client.get('nr:none'), null);
  equal('set with options', await client.set('nr:k', 'w', { EX: 100, NX: true }), null);
  equal('set with GET', await client.set('nr:k', 'x', { PX: 100000, GET: true }), 'v');
  check('ttl', (await client.ttl('nr:k')) > 90);
  equal('mset', await client.mSet({ 'nr:a': '1', 'nr:b': '2' }), 'OK');
  equal('mget', await client.mGet(['nr:a', 'nr:none', 'nr:b']), ['1', null, '2']);
  equal('incrby', await client.incrBy('nr:n', 5), 5);
  equal('getex', await client.getEx('nr:a', { EX: 50 }), '1');
  equal('getdel', await client.getDel('nr:a'), '1');
  equal('copy', await client.copy('nr:b', 'nr:c'), true);
  equal('type', await client.type('nr:c'), 'string');
  equal('expire', await client.expire('nr:c', 100, 'NX'), true);
  equal('lcs', await client.lcs('nr:b', 'nr:c'), '2');
  await rejects('an error reply', client.incr('nr:k'), /not an integer/);
  await rejects('an unknown command', client.sendCommand(['NOSUCH']), /unknown command/i);

  const many = await Promise.all(Array.from({ length: 500 }, (_, i) => client.set(`nr:auto:${i}`, `${i}`)));
  equal('auto-pipelined sets', many.filter((reply) => reply === 'OK').length, 500);
  const values = await Promise.all(Array.from({ length: 500 }, (_, i) => client.get(`nr:auto:${i}`)));
  check('auto-pipelined gets', values.every((value, i) => value === String(i)));

  const seen = new Set();
  for await (const key of client.scanIterator({ MATCH: 'nr:auto:*', COUNT: 50 })) seen.add(key);
  equal('scan iterator', seen.size, 500);

  await client.set('nr:short', 'v', { PX: 20 });
  const gone = Date.now() + 5000;
  while ((await client.exists('nr:short')) && Date.now() < gone);
  equal('expiry', await client.exists('nr:short'), 0);
  check('info', (await client.info('server')).includes('redis_version:'));
  check('client id', (await client.clientId()) > 0);

  const named = createClient({ url: `redis://127.0.0.1:${port}/3`, name: 'worker' });
  await named.connect();
  equal('a name', await named.clientGetName(), 'worker');
  await named.set('nr:k', 'three');
  equal('another database', await client.get('nr:k'), 'x');
  await named.quit();

  await restartServer();
  equal('data after a restart', await answersAgain(() => client.get('nr:k')), 'x');
  equal('writes after a restart', await client.incr('nr:n'), 6);
  await client.quit();
}

try {
  await (library === 'ioredis' ? useIoredis() : useNodeRedis());
} catch (error) {
  check('ran to its end', false, error.stack);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
