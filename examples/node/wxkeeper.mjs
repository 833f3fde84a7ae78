// What a service in JavaScript needs from wxkeeper: a credential that is always current, and requests to the
// workers. It implements the contract of docs/consumers.md. It is an example: copy the file into your service.

import { EventEmitter, once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { Kvm } from "@nats-io/kv";
import { connect as natsConnect } from "@nats-io/transport-node";

const READ_AGAIN = 1_000; // ms after a direct get that failed
const ATTEMPT = 5_000; //    ms for one answer; a worker replies within 4 s
const DEADLINE = 10_000; //  ms for a request with all its attempts

/**
 * Connects with the options that a service needs. By default nats.js fails if no server is up at the start, and
 * closes the connection permanently after ten attempts to reconnect, or after the server has refused its user
 * twice.
 *
 * @param {import("@nats-io/transport-node").ConnectionOptions} options servers, authenticator, inboxPrefix, …
 */
export function connect(options) {
  return natsConnect({
    maxReconnectAttempts: -1, ignoreAuthErrorAbort: true, waitOnFirstConnect: true,
    reconnectTimeWait: 500, // ms
    timeout: 5_000, //         ms for one attempt; it takes all of them if the server closes the connection halfway
    pingInterval: 10_000, //   ms; a network that silently drops packets is detected after three of them
    ...options,
  });
}

/**
 * A record of the bucket.
 *
 * @typedef {object} Record
 * @property {string} value      the token or ticket: a secret
 * @property {number} generation grows with each new value
 * @property {number} revision   identifies this record in a report
 * @property {Date} obtainedAt   when a worker asked WeChat for the value
 * @property {Date} expiresAt    when the value expires
 * @property {Date} storedAt     when NATS stored the record, by the clock of its server
 */

/**
 * A credential that is always current. Events: "change" with the new {@link Record}; "trouble" with an Error,
 * each time that the bucket cannot be read.
 *
 * It receives changes on the subject wechat.published.APPID.KIND, on which the bucket republishes them, and
 * reads the record with a direct get: at the start, after each reconnection, and at an interval. It does not
 * use kv.watch(): in nats.js 3.4 that receives nothing for 90 s after its consumer is lost, and nothing at all,
 * without an error, after the bucket is recreated. It also needs more permissions.
 */
export class Credential extends EventEmitter {
  #nc;
  #appid;
  #kind;
  #prefix;
  #readEvery;
  #kv;
  #subscription;
  /** @type {Record | undefined} */
  #held;
  #timer;
  #closed = false;
  #reports = new Map(); // revision → the report in progress

  /**
   * @param {import("@nats-io/transport-node").NatsConnection} nc
   * @param {string} appid
   * @param {string} kind access_token, jsapi_ticket or wx_card_ticket
   * @param {object} options
   * @param {string} options.bucket    WXKEEPER_BUCKET of the workers
   * @param {string} options.prefix    WXKEEPER_SUBJECT_PREFIX of the workers
   * @param {number} options.readEvery ms between two direct gets, which find changes whose message was lost
   */
  constructor(nc, appid, kind = "access_token", { bucket = "wechat", prefix = "wechat", readEvery = 10_000 } = {}) {
    super();
    this.setMaxListeners(0); // each caller of wait is a listener
    this.#nc = nc;
    this.#appid = appid;
    this.#kind = kind;
    this.#prefix = prefix;
    this.#readEvery = readEvery;
    // allow_direct: the subject of a direct get has the key, so that a permission can grant one account only.
    this.#kv = new Kvm(nc).open(bucket, { allow_direct: true });
    this.#subscription = nc.subscribe(`${prefix}.published.${appid}.${kind}`, {
      callback: (err, msg) => (err ? this.emit("trouble", err) : this.#receive(msg)),
    });
    this.#readAfterReconnections();
    this.#read();
  }

  /** The current record. Throws if there is none yet, or if the last one has expired. */
  get record() {
    if (!this.#held) throw new Error(`no ${this.#kind} of ${this.#appid} yet`);
    if (!valid(this.#held)) throw new Error(`the ${this.#kind} of ${this.#appid} has expired`);
    return this.#held;
  }

  /** The current value. Read it for each use. Throws as record does. */
  get value() {
    return this.record.value;
  }

  /**
   * Waits for a valid record, with a generation above newerThan.
   *
   * @param {{newerThan?: number, signal?: AbortSignal}} options
   */
  async wait({ newerThan = 0, signal = AbortSignal.timeout(DEADLINE) } = {}) {
    try {
      while (!valid(this.#held) || this.#held.generation <= newerThan) await once(this, "change", { signal });
    } catch (cause) {
      throw new Error(`no ${newerThan ? "newer" : "valid"} ${this.#kind} of ${this.#appid} in time`, { cause });
    }
    return this.#held;
  }

  /**
   * Reports to the workers that WeChat refused this record (errcode 40001, 42001 or 40014), and waits until
   * this object holds the current record. Reports of the same record are coalesced. The workers ask WeChat
   * before they renew anything.
   *
   * @param {Record} refused
   * @returns {Promise<{reason: string, generation: number, refreshed: boolean}>} the reply of wechat.credential.refresh
   */
  report(refused) {
    let report = this.#reports.get(refused.revision);
    if (!report) {
      report = this.#report(refused.revision).finally(() => this.#reports.delete(refused.revision));
      this.#reports.set(refused.revision, report);
    }
    return report;
  }

  /** Stops receiving changes. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#subscription.unsubscribe();
  }

  async #report(revision) {
    const body = { appid: this.#appid, kind: this.#kind, revision };
    const reply = await request(this.#nc, "credential.refresh", body, { prefix: this.#prefix });
    if (reply.generation > (this.#held?.generation ?? 0)) {
      this.#read(); // the message of the change may have been lost
      await this.wait({ newerThan: reply.generation - 1 });
    }
    return reply;
  }

  /** Receives a message that the bucket has republished. */
  #receive(msg) {
    if (msg.data.length === 0) return; // deleted or expired: a record that is still valid is kept
    try {
      this.#adopt(msg.json(), Number(msg.headers.get("Nats-Sequence")), new Date(msg.headers.get("Nats-Time-Stamp")));
    } catch (err) {
      this.emit("trouble", err);
    }
  }

  /** Adopts a record of the bucket, unless it is older than the record that this object holds. */
  #adopt(json, revision, storedAt) {
    const record = {
      value: json.value, generation: json.generation, revision, storedAt,
      obtainedAt: new Date(json.obtained_at), expiresAt: new Date(json.expires_at),
    };
    const held = this.#held;
    const known = record.revision === held?.revision && record.storedAt.getTime() === held.storedAt.getTime();
    if (known || !valid(record)) return;
    if (valid(held)) {
      // A lower generation comes from a replica that lags behind, or from a recreated bucket after the workers
      // lost the count. Only in the second case both of its times are later.
      const obtainedLater = record.generation === held.generation || record.obtainedAt > held.obtainedAt;
      const later = record.storedAt > held.storedAt && obtainedLater;
      if (record.generation <= held.generation && !later) return;
    }
    this.#held = record;
    this.emit("change", record);
  }

  /** Reads the record from the bucket, now and again after the interval. */
  async #read() {
    this.#readIn(this.#readEvery);
    try {
      const entry = await (await this.#kv).get(`${this.#appid}.${this.#kind}`);
      if (entry?.operation === "PUT") this.#adopt(entry.json(), entry.revision, entry.created);
    } catch (err) { // NATS is down, or there is no bucket: a record that is still valid is kept
      if (this.#closed) return;
      this.emit("trouble", err);
      this.#readIn(READ_AGAIN);
    }
  }

  #readIn(ms) {
    clearTimeout(this.#timer);
    if (!this.#closed) this.#timer = setTimeout(() => this.#read(), ms);
  }

  async #readAfterReconnections() {
    for await (const status of this.#nc.status()) {
      if (this.#closed) return;
      if (status.type === "reconnect") this.#read(); // messages of the time without a connection do not arrive
    }
  }
}

/** Compares with the clock of this machine, which must be right. @param {Record | undefined} record */
function valid(record) {
  return record !== undefined && Date.now() < record.expiresAt.getTime();
}

/** The error of a request that a worker refused. Its fields: messages/schemas/error.json. */
export class Refusal extends Error {
  /** @param {number} code from the header @param {object} body */
  constructor(code, body) {
    super(`${body.error} (${code}): ${body.message}`);
    this.name = "Refusal";
    this.code = code; //                             400 to 504, as in HTTP
    this.symbol = body.error; //                     decide on this
    this.errcode = body.errcode; //                  from WeChat, if it has answered
    this.errmsg = body.errmsg;
    this.rid = body.rid;
    this.retryAfterMs = body.retry_after_ms ?? 0; // how long to wait before a repetition; 0: not known
  }
}

/**
 * Resolves a code_ticket. Returns WeChat's own answer, in which code is a string.
 *
 * @param {import("@nats-io/transport-node").NatsConnection} nc
 * @param {{appid: string, openid: string, code_ticket: string}} scan
 * @param {{prefix?: string, timeout?: number}} options
 * @returns {Promise<{code: string}>}
 * @throws {Refusal} if a worker refused it
 */
export function resolve(nc, scan, options) {
  return request(nc, "code.resolve", scan, options);
}

/**
 * Sends a request to the workers. It repeats the request until the timeout if no worker listens (the only one
 * restarts) or none replies (the request was lost with a connection).
 *
 * @throws {Refusal} if a worker refused it, without a repetition
 */
async function request(nc, subject, body, { prefix = "wechat", timeout = DEADLINE } = {}) {
  const end = Date.now() + timeout;
  for (let wait = 50; ; wait = Math.min(2 * wait, 1_000)) {
    try {
      const attempt = Math.max(1, Math.min(ATTEMPT, end - Date.now()));
      const msg = await nc.request(`${prefix}.${subject}.${body.appid}`, JSON.stringify(body), { timeout: attempt });
      const code = msg.headers?.get("Nats-Service-Error-Code");
      if (!code) return msg.json();
      throw new Refusal(Number(code), refusalBody(msg, code));
    } catch (err) {
      const unanswered = err.name === "TimeoutError" || err.isNoResponders?.();
      if (!unanswered || Date.now() + wait >= end) throw err;
    }
    await pause(wait);
  }
}

/** The body of a refusal. An error that no worker sent may have only the headers. */
function refusalBody(msg, code) {
  try {
    const body = msg.json();
    if (body.error) return body;
  } catch { /* not JSON */ }
  return { error: `code_${code}`, message: msg.headers.get("Nats-Service-Error") };
}
