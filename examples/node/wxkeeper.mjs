// What a service in JavaScript needs of wxkeeper: a credential that is always the current one, and requests to the
// workers. docs/consumers.md is the contract that this keeps, for any language. Copy this file, it is an example.

import { EventEmitter, once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { Kvm } from "@nats-io/kv";
import { connect as natsConnect } from "@nats-io/transport-node";

const LOOK_AGAIN = 1_000; // ms until the next direct get, after one that failed
const ATTEMPT = 5_000; //    for one answer of a worker, which answers within 4 s
const DEADLINE = 10_000; //  for a request with all its attempts

/**
 * Connects as a service needs it: nats.js alone fails where no server is there at the start, and closes the connection
 * for good after ten tries to reconnect, or after two times that the server refused its user.
 *
 * @param {import("@nats-io/transport-node").ConnectionOptions} options servers, authenticator, inboxPrefix, …
 */
export function connect(options) {
  return natsConnect({
    maxReconnectAttempts: -1, ignoreAuthErrorAbort: true, waitOnFirstConnect: true,
    reconnectTimeWait: 500, // ms
    timeout: 5_000, //         ms for one try, all of which it takes where a server hangs up in the middle
    pingInterval: 10_000, //   ms; a network that swallows everything is noticed after three of them
    ...options,
  });
}

/**
 * One record of the bucket.
 *
 * @typedef {object} Record
 * @property {string} value      the token or ticket: a secret
 * @property {number} generation grows with each new value
 * @property {number} revision   names this record when it is reported
 * @property {Date} obtainedAt   when a worker asked WeChat for the value
 * @property {Date} expiresAt    when its life ends
 * @property {Date} storedAt     when NATS stored the record, by the clock of its server
 */

/**
 * A credential that is always the current one. Events: "change" with the new {@link Record}, "trouble" with an Error,
 * each time that the bucket cannot be read.
 *
 * It hears of changes on the subject wechat.published.APPID.KIND, where the bucket republishes them, and reads the record
 * by a direct get: at the start, after each reconnection, and now and then. It does not use kv.watch(). That one, as
 * nats.js 3.4 has it, is blind for 90 s after its consumer was lost, and for ever, without an error, after the bucket was
 * made anew; and it needs permissions that this does not.
 */
export class Credential extends EventEmitter {
  #nc;
  #appid;
  #kind;
  #prefix;
  #lookEvery;
  #kv;
  #subscription;
  /** @type {Record | undefined} */
  #held;
  #timer;
  #closed = false;
  #reports = new Map(); // revision → the report under way

  /**
   * @param {import("@nats-io/transport-node").NatsConnection} nc
   * @param {string} appid
   * @param {string} kind access_token, jsapi_ticket or wx_card_ticket
   * @param {object} options
   * @param {string} options.bucket    WXKEEPER_BUCKET of the workers
   * @param {string} options.prefix    WXKEEPER_SUBJECT_PREFIX of the workers
   * @param {number} options.lookEvery ms between two direct gets, which find what a lost message would have told
   */
  constructor(nc, appid, kind = "access_token", { bucket = "wechat", prefix = "wechat", lookEvery = 10_000 } = {}) {
    super();
    this.setMaxListeners(0); // any number of callers may wait
    this.#nc = nc;
    this.#appid = appid;
    this.#kind = kind;
    this.#prefix = prefix;
    this.#lookEvery = lookEvery;
    // allow_direct: the direct get names the key in its subject, so that a permission can grant one account alone.
    this.#kv = new Kvm(nc).open(bucket, { allow_direct: true });
    this.#subscription = nc.subscribe(`${prefix}.published.${appid}.${kind}`, {
      callback: (err, msg) => (err ? this.emit("trouble", err) : this.#told(msg)),
    });
    this.#reconnections();
    this.#look();
  }

  /** The current record. It throws where there is none, or the last one has expired. */
  get record() {
    if (!this.#held) throw new Error(`no ${this.#kind} of ${this.#appid} yet`);
    if (!valid(this.#held)) throw new Error(`the ${this.#kind} of ${this.#appid} has expired`);
    return this.#held;
  }

  /** The current value. Ask for it each time that you need it. It throws as record does. */
  get value() {
    return this.record.value;
  }

  /**
   * Waits for a valid record of a generation above the one given.
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
   * Reports that WeChat refused this record (errcode 40001, 42001 or 40014), and waits until the current one is held.
   * However many callers report it, the workers are told once, and they ask WeChat before they renew anything.
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

  /** Stops following. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#subscription.unsubscribe();
  }

  async #report(revision) {
    const body = { appid: this.#appid, kind: this.#kind, revision };
    const reply = await ask(this.#nc, "credential.refresh", body, { prefix: this.#prefix });
    if (reply.generation > (this.#held?.generation ?? 0)) {
      this.#look(); // should the message of the change have been lost
      await this.wait({ newerThan: reply.generation - 1 });
    }
    return reply;
  }

  /** Takes what the bucket has republished. */
  #told(msg) {
    if (msg.data.length === 0) return; // deleted, or expired: what is held is served to its end
    try {
      this.#take(msg.json(), Number(msg.headers.get("Nats-Sequence")), new Date(msg.headers.get("Nats-Time-Stamp")));
    } catch (err) {
      this.emit("trouble", err);
    }
  }

  /** Takes what stands in the bucket, unless that would be a step back. */
  #take(json, revision, storedAt) {
    const record = {
      value: json.value, generation: json.generation, revision, storedAt,
      obtainedAt: new Date(json.obtained_at), expiresAt: new Date(json.expires_at),
    };
    const held = this.#held;
    if (record.revision === held?.revision && record.storedAt.getTime() === held.storedAt.getTime()) return; // the same
    if (!valid(record)) return;
    if (valid(held)) {
      // A lower generation is of a replica that lags behind, or of a bucket that was made anew, when the workers had lost
      // the count. In the latter case alone it is younger in every respect.
      const younger = record.storedAt > held.storedAt && (record.generation === held.generation || record.obtainedAt > held.obtainedAt);
      if (record.generation <= held.generation && !younger) return;
    }
    this.#held = record;
    this.emit("change", record);
  }

  /** Reads the record from the bucket, now, and again later. */
  async #look() {
    this.#lookIn(this.#lookEvery);
    try {
      const entry = await (await this.#kv).get(`${this.#appid}.${this.#kind}`);
      if (entry?.operation === "PUT") this.#take(entry.json(), entry.revision, entry.created);
    } catch (err) { // NATS is away, or there is no bucket: a valid value is served all the same
      if (this.#closed) return;
      this.emit("trouble", err);
      this.#lookIn(LOOK_AGAIN);
    }
  }

  #lookIn(ms) {
    clearTimeout(this.#timer);
    if (!this.#closed) this.#timer = setTimeout(() => this.#look(), ms);
  }

  async #reconnections() {
    for await (const status of this.#nc.status()) {
      if (this.#closed) return;
      if (status.type === "reconnect") this.#look(); // what was published meanwhile has not arrived
    }
  }
}

/** By this machine's clock, which must be right. @param {Record | undefined} record */
function valid(record) {
  return record !== undefined && Date.now() < record.expiresAt.getTime();
}

/** A request that a worker refused: schemas/error.json of the package messages. */
export class Refusal extends Error {
  /** @param {number} code of the header @param {object} body */
  constructor(code, body) {
    super(`${body.error} (${code}): ${body.message}`);
    this.name = "Refusal";
    this.code = code; //                             400 to 504, as in HTTP
    this.symbol = body.error; //                     what a program decides on
    this.errcode = body.errcode; //                  WeChat's own words, where it said any
    this.errmsg = body.errmsg;
    this.rid = body.rid;
    this.retryAfterMs = body.retry_after_ms ?? 0; // when it makes sense to ask again; 0: not known
  }
}

/**
 * Resolves a code_ticket: WeChat's own answer, with its code as a string.
 *
 * @param {import("@nats-io/transport-node").NatsConnection} nc
 * @param {{appid: string, openid: string, code_ticket: string}} scan
 * @param {{prefix?: string, timeout?: number}} options
 * @returns {Promise<{code: string}>}
 * @throws {Refusal} where a worker refused it
 */
export function resolve(nc, scan, options) {
  return ask(nc, "code.resolve", scan, options);
}

/**
 * Asks the workers. While none listens (the only one is being restarted), and where none answers (the request was lost
 * with a connection), it asks again, until its time is over.
 *
 * @throws {Refusal} where a worker refused; that is not asked again here
 */
async function ask(nc, subject, body, { prefix = "wechat", timeout = DEADLINE } = {}) {
  const end = Date.now() + timeout;
  for (let wait = 50; ; wait = Math.min(2 * wait, 1_000)) {
    try {
      const attempt = Math.max(1, Math.min(ATTEMPT, end - Date.now()));
      const msg = await nc.request(`${prefix}.${subject}.${body.appid}`, JSON.stringify(body), { timeout: attempt });
      const code = msg.headers?.get("Nats-Service-Error-Code");
      if (!code) return msg.json();
      throw new Refusal(Number(code), refusalBody(msg, code));
    } catch (err) {
      const unheard = err.name === "TimeoutError" || err.isNoResponders?.();
      if (!unheard || Date.now() + wait >= end) throw err;
    }
    await pause(wait);
  }
}

/** The body of a refusal. An error of something else than a worker has the headers alone. */
function refusalBody(msg, code) {
  try {
    const body = msg.json();
    if (body.error) return body;
  } catch { /* no JSON */ }
  return { error: `code_${code}`, message: msg.headers.get("Nats-Service-Error") };
}
