// The one WebSocket: frames and facts come in, commands and credit go out.

const KINDS = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array };
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 8000;
const VERSION = 1;

/** Returns the header of a binary frame, its sections with their numbers in `data`. Throws on a malformed one. */
export function decodeFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  if (header.v !== VERSION) throw new Error(`frame: expected version ${VERSION}, found ${header.v}. Try reloading.`);
  const first = (4 + length + 3) & ~3;
  header.sections = header.sections.map((section) => {
    const Kind = KINDS[section.dtype];
    const size = section.shape.reduce((product, n) => product * n, 1);
    const at = first + section.at;
    const isAligned = at % Kind.BYTES_PER_ELEMENT === 0;
    const source = isAligned ? buffer : buffer.slice(at, at + size * Kind.BYTES_PER_ELEMENT);
    return { ...section, data: new Kind(source, isAligned ? at : 0, size) };
  });
  return header;
}

/** Returns the section of a frame by name, or undefined. */
export function sectionOf(frame, name) {
  return frame.sections.find((section) => section.name === name);
}

/**
 * Holds the connection, and takes it up again when it is lost.
 *
 * `on.state(name, sentence)` hears of connecting, live, lost and refused; `on.facts`, `on.frame` and `on.problem` of
 * what comes in. A command's promise ends with the server's answer: done, or an Error with its sentence.
 */
export class Wire {
  constructor(on) {
    this.on = on;
    this.pending = new Map();
    this.lastId = 0;
    this.waitMs = FIRST_WAIT_MS;
    this.timer = 0;
  }

  connect() {
    clearTimeout(this.timer);
    this.wasOpen = false;
    this.on.state('connecting', 'Connecting');
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      this.wasOpen = true;
    };
    socket.onmessage = ({ data }) => this.take(data);
    socket.onclose = ({ reason }) => this.closed(socket, reason);
    this.socket = socket;
  }

  take(data) {
    try {
      if (typeof data === 'string') this.takeText(JSON.parse(data));
      else this.on.frame(decodeFrame(data));
    } catch (problem) {
      console.error(problem);
      this.on.problem(problem.message);
    }
  }

  takeText(message) {
    if (message.facts) {
      this.waitMs = FIRST_WAIT_MS;
      this.on.state('live', 'Live');
      this.on.facts(message.facts);
      return;
    }
    const id = message.error === undefined ? message.done : message.of;
    const waiting = this.pending.get(id);
    this.pending.delete(id);
    if (message.error === undefined) waiting?.resolve();
    else if (waiting) waiting.reject(new Error(message.error));
    else this.on.problem(message.error);
  }

  async closed(socket, reason) {
    if (socket !== this.socket) return;
    for (const { reject } of this.pending.values()) reject(new Error('The connection was lost.'));
    this.pending.clear();
    const [state, sentence] = await this.diagnose(reason);
    if (socket !== this.socket) return;
    this.on.state(state, sentence);
    if (state === 'refused') return;
    this.timer = setTimeout(() => this.connect(), this.waitMs * (0.8 + 0.4 * Math.random()));
    this.waitMs = Math.min(LONGEST_WAIT_MS, this.waitMs * 1.7);
  }

  /** A refused WebSocket does not say why; an ordinary request to the same place does. */
  async diagnose(reason) {
    if (this.wasOpen) return ['lost', reason ? `Connection lost: ${reason}` : 'Connection lost'];
    try {
      const { status } = await fetch('/', { cache: 'no-store', redirect: 'manual' });
      if (status === 403) return ['refused', 'Refused: open the address with the token that the viewer printed'];
      if (status === 200) return ['lost', 'Refused for now: too many pages may be open'];
      return ['lost', `Connection lost: the viewer answers ${status}`];
    } catch {
      return ['lost', 'Connection lost: the viewer does not answer'];
    }
  }

  /** Send a command; returns a promise of its answer. */
  send(command) {
    if (this.socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error('There is no connection.'));
    this.lastId += 1;
    const id = this.lastId;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ ...command, id }));
    });
  }

  /** Tell the server that a frame is drawn, so that it may send another. */
  shown(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ do: 'shown', frame }));
  }
}
