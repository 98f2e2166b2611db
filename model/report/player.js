// Skeletons in 3D on canvases. Metres: x across, y away from the viewer, z up. One camera for all panels.
(() => {
  "use strict";
  const root = document.currentScript.closest(".skeleton-player");
  const find = (name) => root.querySelector(`.sp-${name}`);
  const data = JSON.parse(find("data").textContent);
  const { bodies, frames, joints, bones, sides, head } = data;
  const NOTHING = -32768, PITCH = 12, YAW = 25, DEGREE = Math.PI / 180;
  const LEAST_METRES = 0.5; // from the middle of a scene to its border
  const DISTANCE = 5; // of the camera, in times the length from there to the border

  const blocks = data.blocks.map(decode);
  const panels = data.panels.map((panel, index) => {
    const figure = root.querySelectorAll(".sp-panel")[index];
    return {
      ...panel,
      points: blocks[panel.block],
      wanted: panel.target === null ? null : blocks[panel.target],
      figure,
      canvas: figure.querySelector("canvas"),
      state: figure.querySelector(".sp-state"),
      error: figure.querySelector(".sp-error"),
    };
  });
  const fixed = standpoint(), tracks = panels.map(({ points, wanted }) => trackOf(wanted ?? points));
  const rooms = { fixed: measure(() => fixed), followed: measure((index) => tracks[index]) };
  const floor = floorHeight();
  const start = { yaw: bestYaw() * DEGREE, pitch: PITCH * DEGREE, zoom: 1 };
  const camera = { ...start };
  const stage = find("stage"), scrub = find("scrub"), play = find("play"), speed = find("speed");
  const compare = find("compare"), follow = find("follow"), counter = find("counter");
  follow.checked = rooms.fixed.across > 1.3 * rooms.followed.across;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let time = 0; // in frames; whole unless it plays
  let playing = false, seen = true, last = 0, waiting = 0, colours;

  // Metres as Float32Array, (body, frame, joint, coordinate); NaN where there is nothing.
  function decode(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const metres = new Float32Array(bytes.length / 2);
    for (let place = 0; place < metres.length; place++) {
      const whole = view.getInt16(2 * place, true);
      metres[place] = whole === NOTHING ? NaN : whole / 1000;
    }
    return metres;
  }

  function at(body, frame) {
    return (body * frames + frame) * joints * 3;
  }

  function present(points, body, frame) {
    return !Number.isNaN(points[at(body, frame)]);
  }

  // Where the middle of all bodies is, across and away, for every frame: (x, y) pairs, without small shakes.
  function trackOf(points) {
    const tracks = [];
    for (let body = 0; body < bodies; body++) {
      const track = Array.from({ length: frames }, (_, frame) => {
        if (!present(points, body, frame)) return null;
        const sum = [0, 0];
        for (let joint = 0; joint < joints; joint++) {
          sum[0] += points[at(body, frame) + 3 * joint] / joints;
          sum[1] += points[at(body, frame) + 3 * joint + 1] / joints;
        }
        return sum;
      });
      let known = track.find(Boolean);
      if (known) tracks.push(track.map((place) => (known = place ?? known)));
    }
    if (!tracks.length) return Array.from({ length: frames }, () => [0, 0]);
    const mean = (places) => [0, 1].map((axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length);
    const middle = Array.from({ length: frames }, (_, frame) => mean(tracks.map((track) => track[frame])));
    const reach = Math.ceil(frames / 16);
    return middle.map((_, frame) => mean(middle.slice(Math.max(frame - reach, 0), frame + reach + 1)));
  }

  // Half the room that the panels need, in metres, and the height of its middle. All frames of all of them decide
  // it together, so that nothing jumps; what was rebuilt badly, and a joint gone astray, shrink nobody.
  function measure(trackOfPanel) {
    let across = LEAST_METRES, low = Infinity, high = -Infinity;
    panels.forEach((panel, index) => {
      const points = panel.wanted ?? panel.points, track = trackOfPanel(index), distances = [], heights = [];
      for (let place = 0; place < points.length; place += 3) {
        if (Number.isNaN(points[place])) continue;
        const [x, y] = track[Math.floor(place / 3 / joints) % frames];
        distances.push(Math.hypot(points[place] - x, points[place + 1] - y));
        heights.push(points[place + 2]);
      }
      const [lowest, highest] = ends(heights);
      across = Math.max(across, ends(distances)[1]);
      [low, high] = [Math.min(low, lowest), Math.max(high, highest)];
    });
    return { across, up: Math.max((high - low) / 2, LEAST_METRES), height: (low + high) / 2 };
  }

  // The smallest and the largest of the numbers, without a 300th of them at either end.
  function ends(numbers) {
    const sorted = Float32Array.from(numbers).sort(), cut = Math.floor(sorted.length / 300);
    return sorted.length ? [sorted[cut], sorted[sorted.length - 1 - cut]] : [-LEAST_METRES, LEAST_METRES];
  }

  // The middle of all that is recorded or augmented, (x, y), for a camera that stays where it is.
  function standpoint() {
    const all = [[], []];
    for (const { points, wanted } of panels) {
      for (let place = 0; place < points.length; place += 3) {
        if (wanted || Number.isNaN(points[place])) continue;
        all[0].push(points[place]);
        all[1].push(points[place + 1]);
      }
    }
    const middle = all.map((numbers) => ends(numbers)).map(([low, high]) => (low + high) / 2);
    return Array.from({ length: frames }, () => middle);
  }

  // Where the recorded feet mostly are: the median over time of the lowest joint.
  function floorHeight() {
    const { points } = panels[0], lowest = [];
    for (let body = 0; body < bodies; body++) {
      for (let frame = 0; frame < frames; frame++) {
        if (!present(points, body, frame)) continue;
        let low = Infinity;
        for (let joint = 0; joint < joints; joint++) low = Math.min(low, points[at(body, frame) + 3 * joint + 2]);
        lowest.push(low);
      }
    }
    lowest.sort((one, other) => one - other);
    return lowest.length ? lowest[lowest.length >> 1] : -1;
  }

  // From the side from which two people hide each other less: they mostly face each other.
  function bestYaw() {
    const apart = (yaw) => {
      const cos = Math.cos(yaw * DEGREE), sin = Math.sin(yaw * DEGREE), { points } = panels[0];
      let sum = 0;
      for (let frame = 0; bodies > 1 && frame < frames; frame++) {
        if (!present(points, 0, frame) || !present(points, 1, frame)) continue;
        let gap = 0;
        for (let joint = 0; joint < joints; joint++) {
          const one = at(0, frame) + 3 * joint, other = at(1, frame) + 3 * joint;
          gap += cos * (points[one] - points[other]) + sin * (points[one + 1] - points[other + 1]);
        }
        sum += Math.abs(gap);
      }
      return sum;
    };
    return apart(YAW) >= apart(-YAW) ? YAW : -YAW;
  }

  function readColours() {
    const style = getComputedStyle(root);
    const value = (name) => style.getPropertyValue(`--${name}`).trim();
    const tones = [0, 1].map((body) => sides.map((side) => value(`${side}-${body}`)));
    return { tones, panel: value("panel"), grid: value("grid"), shadow: value("shadow"), wanted: value("wanted") };
  }

  // From metres to a canvas: pixels across and down, and what a metre measures there.
  function lens(width, height, [x0, y0]) {
    const { yaw, pitch, zoom } = camera, { across, up, height: z0 } = follow.checked ? rooms.followed : rooms.fixed;
    const cosYaw = Math.cos(yaw), sinYaw = Math.sin(yaw), cosPitch = Math.cos(pitch), sinPitch = Math.sin(pitch);
    const steep = Math.sin(start.pitch), tall = up * Math.cos(start.pitch) + across * steep;
    const scale = 0.92 * zoom * Math.min(width / 2 / across, height / 2 / tall);
    const away = DISTANCE * Math.max(across, up);
    return (x, y, z) => {
      const dx = x - x0, dy = y - y0, dz = z - z0;
      const right = cosYaw * dx + sinYaw * dy, back = cosYaw * dy - sinYaw * dx;
      const depth = cosPitch * back - sinPitch * dz, higher = cosPitch * dz + sinPitch * back;
      const size = (scale * away) / Math.max(away + depth, 0.05 * away);
      return { x: width / 2 + right * size, y: height / 2 - higher * size, size, depth };
    };
  }

  // Lines on the floor, half a metre or a metre apart, that fade out around the middle of what is looked at.
  function drawFloor(pen, project, [x0, y0]) {
    const { across } = follow.checked ? rooms.followed : rooms.fixed;
    const gap = across > 4 ? 1 : 0.5, reach = Math.max(1.25 * across, 3 * gap);
    const line = (ax, ay, bx, by) => {
      const far = Math.hypot((ax + bx) / 2 - x0, (ay + by) / 2 - y0) / reach;
      if (far >= 1) return;
      const one = project(ax, ay, floor), other = project(bx, by, floor);
      pen.strokeStyle = `rgba(${colours.grid}, ${(0.34 * (1 - far * far)).toFixed(3)})`;
      pen.beginPath();
      pen.moveTo(one.x, one.y);
      pen.lineTo(other.x, other.y);
      pen.stroke();
    };
    const first = (middle) => Math.floor((middle - reach) / gap), after = (middle) => Math.ceil((middle + reach) / gap);
    pen.lineWidth = 1;
    for (let column = first(x0); column <= after(x0); column++) {
      for (let row = first(y0); row <= after(y0); row++) {
        const x = column * gap, y = row * gap;
        line(x, y, x + gap, y);
        line(x, y, x, y + gap);
      }
    }
  }

  // The joints of a body at a time between frames, or null; only what is there in both is in between.
  function pose(points, body, frame, share) {
    if (frame < 0 || !present(points, body, frame)) return null;
    const here = points.subarray(at(body, frame), at(body, frame) + 3 * joints);
    if (!share || frame + 1 >= frames || !present(points, body, frame + 1)) return here;
    const next = at(body, frame + 1);
    return here.map((value, place) => value + share * (points[next + place] - value));
  }

  function drawShadow(pen, project, xyz) {
    pen.strokeStyle = `rgba(${colours.shadow}, ${dark.matches ? 0.38 : 0.11})`;
    pen.lineCap = "round";
    pen.beginPath();
    let width = 1;
    for (const [child, parent] of bones) {
      const one = project(xyz[3 * child], xyz[3 * child + 1], floor);
      const other = project(xyz[3 * parent], xyz[3 * parent + 1], floor);
      pen.moveTo(one.x, one.y);
      pen.lineTo(other.x, other.y);
      width = 0.07 * one.size;
    }
    pen.lineWidth = Math.max(width, 2);
    pen.stroke();
  }

  function drawFaint(pen, project, xyz) {
    pen.strokeStyle = colours.wanted;
    pen.lineCap = "round";
    pen.globalAlpha = 0.75;
    pen.beginPath();
    let width = 1;
    for (const [child, parent] of bones) {
      const [one, other] = [child, parent].map((joint) => project(...xyz.subarray(3 * joint, 3 * joint + 3)));
      pen.moveTo(one.x, one.y);
      pen.lineTo(other.x, other.y);
      width = boneWidth(one.size);
    }
    pen.lineWidth = Math.max(0.55 * width, 1.2);
    pen.stroke();
    pen.globalAlpha = 1;
  }

  function boneWidth(size) {
    return Math.min(Math.max(0.038 * size, 1.8), 9);
  }

  // Bones and joints of all bodies from the farthest to the nearest; the ground around each shows what is in front.
  function drawBodies(pen, project, poses) {
    const parts = [];
    poses.forEach((xyz, body) => {
      if (!xyz) return;
      const tones = colours.tones[Math.min(body, 1)];
      const placed = Array.from({ length: joints }, (_, joint) => project(...xyz.subarray(3 * joint, 3 * joint + 3)));
      const nearest = placed.map((place) => place.depth);
      for (const [child, parent] of bones) {
        const depth = (placed[child].depth + placed[parent].depth) / 2;
        parts.push({ depth, ends: [placed[child], placed[parent]], tone: tones[child] });
        for (const joint of [child, parent]) nearest[joint] = Math.min(nearest[joint], depth);
      }
      placed.forEach((place, joint) => {
        const width = boneWidth(place.size);
        const radius = joint === head ? Math.max(0.085 * place.size, 1.6 * width) : 0.82 * width;
        const depth = nearest[joint] - 0.01; // in front of the bones that end in it
        parts.push({ depth, place, radius, tone: tones[joint], hollow: body > 0 });
      });
    });
    parts.sort((one, other) => other.depth - one.depth);
    for (const part of parts) (part.ends ? drawBone : drawJoint)(pen, part);
  }

  function drawBone(pen, { ends: [one, other], tone }) {
    const width = boneWidth((one.size + other.size) / 2);
    const stroke = (style, cap, wide, from, to) => {
      pen.strokeStyle = style;
      pen.lineCap = cap;
      pen.lineWidth = wide;
      pen.beginPath();
      pen.moveTo(one.x + from * (other.x - one.x), one.y + from * (other.y - one.y));
      pen.lineTo(one.x + to * (other.x - one.x), one.y + to * (other.y - one.y));
      pen.stroke();
    };
    const joint = (1.6 * width) / Math.max(Math.hypot(other.x - one.x, other.y - one.y), 1);
    if (joint < 0.5) stroke(colours.panel, "butt", width + 3, joint, 1 - joint); // not where bones meet
    stroke(tone, "round", width, 0, 1);
  }

  function drawJoint(pen, { place, radius, tone, hollow }) {
    pen.beginPath();
    pen.arc(place.x, place.y, radius, 0, 2 * Math.PI);
    pen.fillStyle = hollow ? colours.panel : tone;
    pen.fill();
    if (!hollow) return;
    pen.strokeStyle = tone;
    pen.lineWidth = Math.max(0.45 * radius, 1.1);
    pen.stroke();
  }

  // What a panel shows of a frame: a word about it, and the frame that is drawn faintly instead, if any.
  function stateOf(panel, frame) {
    if (panel.hiddenFrom !== null && frame >= panel.hiddenFrom) {
      return { word: "hidden; last pose seen", faint: panel.points, faintFrame: panel.hiddenFrom - 1 };
    }
    if (frame < panel.rebuiltFrom) return { word: "seen, not rebuilt", faint: panel.wanted, faintFrame: frame };
    const nobody = !poses(panel.points, frame, 0).some(Boolean);
    return { word: nobody ? "nobody seen" : "", faint: null, faintFrame: frame };
  }

  function poses(points, frame, share) {
    return Array.from({ length: bodies }, (_, body) => pose(points, body, frame, share));
  }

  // What the camera looks at: (x, y).
  function middleOf(panel, frame, share) {
    if (!follow.checked) return fixed[frame];
    const track = tracks[panels.indexOf(panel)], here = track[frame], next = track[Math.min(frame + 1, frames - 1)];
    return here.map((value, axis) => value + share * (next[axis] - value));
  }

  function drawPanel(panel, frame, share) {
    const { canvas } = panel, ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d"), middle = middleOf(panel, frame, share);
    const project = lens(width, height, middle);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    drawFloor(pen, project, middle);
    const { word, faint, faintFrame } = stateOf(panel, frame);
    panel.figure.classList.toggle("sp-dim", Boolean(faint));
    if (panel.state.textContent !== word) panel.state.textContent = word;
    if (faint) {
      const moves = faintFrame === frame ? share : 0;
      for (const xyz of poses(faint, faintFrame, moves)) if (xyz) drawFaint(pen, project, xyz);
      showError(panel, null);
      return;
    }
    const lastSeen = panel.hiddenFrom !== null && frame + 1 >= panel.hiddenFrom;
    const shown = poses(panel.points, frame, lastSeen ? 0 : share);
    for (const xyz of shown) if (xyz) drawShadow(pen, project, xyz);
    const wanted = panel.wanted && compare.checked ? poses(panel.wanted, frame, share) : [];
    for (const xyz of wanted) if (xyz) drawFaint(pen, project, xyz);
    drawBodies(pen, project, shown);
    showError(panel, frame);
  }

  // Mean distance of the rebuilt joints to where they should be.
  function showError(panel, frame) {
    if (!panel.wanted) return;
    let sum = 0, count = 0;
    for (let body = 0; frame !== null && body < bodies; body++) {
      for (let place = at(body, frame); place < at(body, frame + 1); place += 3) {
        const off = Math.hypot(...[0, 1, 2].map((axis) => panel.points[place + axis] - panel.wanted[place + axis]));
        if (!Number.isNaN(off)) [sum, count] = [sum + off, count + 1];
      }
    }
    const text = count ? `${((100 * sum) / count).toFixed(1)} cm off` : "\u00a0"; // never an empty line: it would jump
    if (panel.error.textContent !== text) panel.error.textContent = text;
  }

  function draw() {
    waiting = 0;
    colours ??= readColours();
    const frame = Math.min(Math.floor(time + 1e-9), frames - 1);
    const share = playing && !calm.matches ? time - frame : 0;
    for (const panel of panels) drawPanel(panel, frame, share);
    const seconds = `${(frame * data.frameSeconds).toFixed(2)} s`;
    if (root.dataset.frame !== String(frame) || !counter.firstChild) {
      root.dataset.frame = frame;
      scrub.value = frame;
      scrub.setAttribute("aria-valuetext", `frame ${frame} of 0 to ${frames - 1}, ${seconds}`);
      const number = document.createElement("b");
      number.textContent = frame;
      counter.replaceChildren("frame ", number, ` / ${frames - 1} · ${seconds}`);
    }
  }

  function redraw() {
    if (!waiting) waiting = requestAnimationFrame(draw);
  }

  function advance(now) {
    if (!playing) return;
    if (seen) {
      const passed = Math.min(Math.max(now - last, 0) / 1000, 0.25); // a frame may have begun before the click
      time += (passed / data.frameSeconds) * Number(speed.value);
      if (time >= frames) time = 0;
      redraw();
    }
    last = now;
    requestAnimationFrame(advance);
  }

  function setPlaying(on) {
    if (on === playing) return;
    playing = on;
    play.classList.toggle("sp-playing", on);
    play.setAttribute("aria-label", on ? "pause" : "play");
    if (!on) return goTo(Math.floor(time));
    if (time >= frames - 1) time = 0;
    last = performance.now();
    requestAnimationFrame(advance);
  }

  function goTo(frame) {
    time = Math.min(Math.max(frame, 0), frames - 1);
    redraw();
  }

  function step(by) {
    setPlaying(false);
    goTo(Math.floor(time) + by);
  }

  function turn(yaw, pitch) {
    camera.yaw += yaw;
    camera.pitch = Math.min(Math.max(camera.pitch + pitch, -89 * DEGREE), 89 * DEGREE);
    redraw();
  }

  function zoom(by) {
    camera.zoom = Math.min(Math.max(camera.zoom * by, 0.4), 8);
    redraw();
  }

  function reset() {
    Object.assign(camera, start);
    redraw();
  }

  // A slider and a choice keep their own keys; a button keeps the space bar.
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const own = event.target.tagName, scrubbing = event.target === scrub;
    if (own === "SELECT" || (event.key === " " && (own === "BUTTON" || event.target.type === "checkbox"))) return;
    const TURN = 6 * DEGREE;
    const keys = {
      "shift ArrowLeft": () => turn(TURN, 0),
      "shift ArrowRight": () => turn(-TURN, 0),
      "shift ArrowUp": () => turn(0, TURN),
      "shift ArrowDown": () => turn(0, -TURN),
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      ArrowUp: scrubbing ? () => step(1) : () => turn(0, TURN),
      ArrowDown: scrubbing ? () => step(-1) : () => turn(0, -TURN),
      Home: () => step(-frames),
      End: () => step(frames),
      " ": () => setPlaying(!playing),
      "+": () => zoom(1.15),
      "=": () => zoom(1.15),
      "-": () => zoom(1 / 1.15),
      0: reset,
    };
    const arrow = event.shiftKey && event.key.startsWith("Arrow");
    const action = keys[arrow ? `shift ${event.key}` : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  function listenToPointers() {
    const pointers = new Map();
    const spread = () => {
      const [one, other] = [...pointers.values()];
      return Math.hypot(one.x - other.x, one.y - other.y);
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      stage.classList.add("sp-turning");
    });
    stage.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const wide = pointers.size === 2 ? spread() : 0;
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (pointers.size === 2) return zoom(spread() / Math.max(wide, 1));
      if (pointers.size === 1) turn(-(event.clientX - before.x) * 0.01, (event.clientY - before.y) * 0.01);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => {
        pointers.delete(event.pointerId);
        if (!pointers.size) stage.classList.remove("sp-turning");
      });
    }
    stage.addEventListener("dblclick", reset);
    // Elsewhere on the page the wheel scrolls; a pinch on a trackpad comes with ctrl.
    const onWheel = (event) => {
      if (!event.ctrlKey && !root.contains(document.activeElement)) return;
      event.preventDefault();
      zoom(Math.exp(-Math.min(Math.max(event.deltaY, -100), 100) * 0.002));
    };
    stage.addEventListener("wheel", onWheel, { passive: false });
  }

  // Below the slider: which frames a view hides.
  function showSpans() {
    const tails = panels.filter((panel) => panel.hiddenFrom !== null);
    for (const { name, hiddenFrom } of tails) {
      const strip = document.createElement("div"), last = Math.max(frames - 1, 1);
      strip.style.marginInlineStart = `${(100 * hiddenFrom) / last}%`;
      strip.title = `hidden in the ${name}: frames ${hiddenFrom} to ${frames - 1}`;
      find("spans").append(strip);
    }
  }

  root.addEventListener("keydown", onKey);
  listenToPointers();
  scrub.addEventListener("input", () => (setPlaying(false), goTo(Number(scrub.value))));
  play.addEventListener("click", () => setPlaying(!playing));
  find("reset").addEventListener("click", reset);
  compare?.addEventListener("change", redraw);
  follow.addEventListener("change", redraw);
  dark.addEventListener("change", () => ((colours = null), redraw()));
  const resized = new ResizeObserver(redraw);
  for (const { canvas } of panels) resized.observe(canvas);
  let met = false;
  new IntersectionObserver((entries) => {
    seen = entries.at(-1).isIntersecting;
    if (seen && !met && "autoplay" in root.dataset && !calm.matches) setPlaying(true);
    met ||= seen;
  }).observe(stage);
  showSpans();
  draw();
})();
