#!/usr/bin/env python3
"""Speed and memory of senet beside PyTorch, torch.compile, ONNX Runtime and OpenVINO, in turns on the same machine.

    python3 -m venv VENV && VENV/bin/pip install -r scripts/requirements.txt
    VENV/bin/python scripts/compare_peers.py [--networks NAME,...] [--what train,eval] [--peers NAME,...]
        [--rounds 7] [--steps 5] [--threads N] [--into RESULTS.md] [--json FILE]

The tables go to stdout as Markdown, progress to stderr. `--into` puts each network's also into a file, between the
lines `<!-- compare_peers NAME -->` and `<!-- end of compare_peers -->`, which have to be there; the blocks of
networks that were not measured stay as they are. `--json` keeps every figure.

Turns. In a round each side is timed once: two steps that do not count, then `--steps` that do, of which the median is
the round's figure. senet runs as `senet bench`, a process a round. A peer runs as pip installs it, with its defaults,
in a process of its own that lives through all rounds, so that what it compiles it compiles once; while others are
timed it waits for a line on stdin. All see made-up batches of the same size on the same number of threads; senet's
steps normalise them too. The table has the medians of the rounds' figures, their least and greatest, and the same of
the rounds' ratios.

Nothing else may run: the threads of libtorch spin while they wait for each other, and beside one busy process a peer
can be ten times slower. What share of the processors others take is looked at before each round and stands in the
text.

Networks. The peers' are those that the golden numbers are made with (golden.py): timm's where it has the network,
else the ones written there. A peer whose network has another number of parameters than senet's, or that evaluates to
something other than PyTorch does, ends the comparison. OpenVINO chooses bfloat16 by itself where the processor has
it; there it is measured so and, a second time, told to compute in float32 as all others do.

The machine's rate is that of the product of two 4096 x 4096 float32 matrices by torch.mm, also timed in each round.
Each side's FLOP/s are images a second x 2 x the network's multiply-adds, three times that in training: what a direct
convolution takes. Algorithms that multiply less, such as Winograd's, reach shares of the rate that a direct one
cannot.

Memory is the peak of the resident set (VmHWM; for senet `ru_maxrss`, the same number) of a fresh process that does
five training steps. What it held when its libraries were loaded, but no network built, stands beside it, to be
subtracted: for Python the resident set after the imports, for senet the peak of `senet doctor`, which loads libtorch
and computes nothing.
"""
import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

# The process that measures loads none of the peers, each worker only its own: it has to be idle while others run, and
# Linux counts what a process held before it became `senet` to senet's peak.

ROOT = Path(__file__).resolve().parent.parent
BATCH_SIZES = {"se-resnet-50": 16, "se-resnext-50-32x4d": 16, "se-bn-inception": 16, "se-resnet-20": 128}
PEERS = {
    "train": {"eager": "{library} eager, channels_last", "compile": "torch.compile, channels_last"},
    "eval": {
        "eager": "{library} eager, channels_last",
        "compile": "torch.compile frozen, channels_last",
        "onnxruntime": "ONNX Runtime",
        "openvino": "OpenVINO",
        "openvino-f32": "OpenVINO told to compute in f32",
    },
}
TITLES = {"train": "training step", "eval": "evaluation"}
LIBRARIES = ["torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino"]
WARM_UP = 2  # steps that do not count, as in `senet bench`
SGEMM_SIZE, SGEMM_STEPS = 4096, 3
MEMORY_STEPS = 5


@dataclass
class Job:
    """What one worker times: a peer in training or evaluation, or `sgemm`; with `memory`, what five steps need."""

    peer: str
    what: str
    network: str
    classes: int
    size: int
    batch_size: int
    threads: int
    steps: int


# ---- In a worker ----


def network(job):
    import golden

    zoo = golden.imagenet_networks() | golden.other_imagenet_networks() | golden.cifar_networks()
    reference = zoo[job.network]
    return reference.build(job.classes), reference.source


def images(job):
    import torch

    return torch.randn(job.batch_size, 3, job.size, job.size)


def described(net, source, **more):
    return {"parameters": sum(parameter.numel() for parameter in net.parameters()), "source": source, **more}


def training(job):
    import torch

    net, source = network(job)
    net = net.train().to(memory_format=torch.channels_last)
    x = images(job).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, job.classes, (job.batch_size,))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    forward = torch.compile(net) if job.peer == "compile" else net

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(forward(x), y).backward()
        optimizer.step()

    return step, described(net, source)


def with_statistics(net, x):
    """Gives the batch norms the statistics of these images: without any, the maps of deep nets fade to nothing."""
    import torch

    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        net.train()(x)
    return net.eval()


def relative_error(found, expected):
    """Root mean square of the error, in that of how one image's outputs differ from the mean of all."""
    error, spread = (x.square().mean().sqrt() for x in (found - expected, expected - expected.mean(0)))
    return (error / spread).item()


def evaluation(job):
    import torch

    net, source = network(job)
    x = images(job)
    with torch.no_grad():
        expected = with_statistics(net, x)(x)
    step, more = EVALUATIONS[job.peer](job, net, x)
    error = relative_error(torch.as_tensor(step()), expected)
    # Where a peer chooses fewer bits by itself, the table says what that costs; another network is off by more than 1.
    if not error < (1e-3 if more.get("precision", "f32") == "f32" else 0.5):
        raise SystemExit(f"error: {job.peer} evaluates {job.network} to something else: {error:.3g} off")
    return step, described(net, source, relative_error=error, **more)


def eager(_, net, x):
    import torch

    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)

    def step():
        with torch.inference_mode():
            return net(x)

    return step, {}


def frozen(job, net, x):
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = True
    return eager(job, torch.compile(net), x)


def onnx_file(net, x):
    """The network in memory as ONNX."""
    import io

    import torch

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the tracing exporter is the old one, and folds some slices only
        torch.onnx.export(net, (x,), file, dynamo=False)
    return file.getvalue()


def onnxruntime(job, net, x):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(onnx_file(net, x), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)[0], {}


def openvino(job, net, x):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": job.threads, "NUM_STREAMS": 1}
    if job.peer == "openvino-f32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(onnx_file(net, x), b""), "CPU", settings)
    request, feed = compiled.create_infer_request(), {0: x.numpy()}
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return lambda: request.infer(feed)[0], {"precision": precision}


EVALUATIONS = {"eager": eager, "compile": frozen, "onnxruntime": onnxruntime}
EVALUATIONS |= dict.fromkeys(["openvino", "openvino-f32"], openvino)


def sgemm(_):
    import torch

    a, b = torch.randn(SGEMM_SIZE, SGEMM_SIZE), torch.randn(SGEMM_SIZE, SGEMM_SIZE)
    return lambda: torch.mm(a, b), {"vectors": torch.backends.cpu.get_cpu_capability()}


def resident(field):
    """VmRSS or VmHWM of this process, in bytes."""
    return 1024 * int(re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def memory(job):
    import golden  # noqa: F401: torch and timm with it

    loaded = resident("VmRSS")
    step, found = training(job)
    for _ in range(MEMORY_STEPS):
        step()
    return step, {**found, "loaded": loaded, "peak": resident("VmHWM")}


def seconds(step, count):
    for _ in range(WARM_UP):
        step()
    figures = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        figures.append(time.perf_counter() - start)
    return figures


def work(job):
    """A line of facts when ready, then for each line `go` one with the seconds of each step."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer

    import torch

    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    step, found = {"train": training, "eval": evaluation, "sgemm": sgemm, "memory": memory}[job.what](job)
    if job.what != "memory":
        seconds(step, 0)
    print(json.dumps(found), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "go":
            print(json.dumps(seconds(step, job.steps)), file=answers, flush=True)


# ---- The sides ----


class Worker:
    """A process that does a job when asked."""

    def __init__(self, job):
        self.job = job
        say(f"{job.network}, {job.what}: {job.peer} gets ready")
        command = [sys.executable, __file__, "--worker", json.dumps(asdict(job))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self.job.peer} of {self.job.network} ended with {self.process.wait()}")
        return json.loads(line)

    def seconds(self):
        print("go", file=self.process.stdin, flush=True)
        return statistics.median(self.answer())

    def rate(self):
        return self.job.batch_size / self.seconds()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


class Senet:
    """`senet bench` on the same job, each time as a new process."""

    def __init__(self, program, job):
        self.command = [
            program, "bench", job.what, "--model", job.network, "--batch-size", str(job.batch_size),
            "--size", str(job.size), "--threads", str(job.threads), "--steps", str(job.steps), "--json",
        ]

    def rate(self):
        return json.loads(output(self.command))["images_per_second"]["median"]


def output(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- Measuring ----


def cpu_times():
    """Of all processors together since the start of the system: busy, and in all."""
    user, nice, system, idle, wait, *more = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    busy = user + nice + system + sum(more)
    return busy, busy + idle + wait


def taken_by_others():
    """The share of the processors that others take while all sides wait."""
    time.sleep(0.2)  # ONNX Runtime's threads spin a little after their work
    busy, total = cpu_times()
    time.sleep(0.5)
    busy_after, total_after = cpu_times()
    return (busy_after - busy) / max(total_after - total, 1)


def jobs_for(args, name):
    """Makes jobs on a network, at the size and for the classes that `senet bench` uses."""
    summary = json.loads(output([args.senet, "summary", name, "--json"]))

    def job(peer, what, steps=args.steps):
        size, classes = summary["input"][-1], summary["classes"]
        return Job(peer, what, name, classes, size, BATCH_SIZES[name], args.threads, steps)

    return summary, job


def check_parameters(worker, summary):
    theirs, ours = worker.facts["parameters"], summary["params"]["trainable"]
    if theirs != ours:
        raise SystemExit(f"error: {worker.job.network} has {theirs} parameters in {worker.job.peer}, {ours} in senet")


def is_f32(facts):
    return facts is not None and facts["precision"] == "f32"


def speeds(args, what, summary, job):
    """The rounds' figures of each side, and of the product of matrices, with what the peers say of themselves."""
    with ExitStack() as workers:
        matrices = workers.enter_context(Worker(job("sgemm", "sgemm", SGEMM_STEPS)))
        sides, found = {"senet": Senet(args.senet, job("senet", what))}, {"sgemm": matrices.facts}
        for peer in PEERS[what]:
            if peer in args.peers and not (peer == "openvino-f32" and is_f32(found.get("openvino"))):
                sides[peer] = workers.enter_context(Worker(job(peer, what)))
                found[peer] = sides[peer].facts
                check_parameters(sides[peer], summary)
        rounds, flops, others = {side: [] for side in sides}, [], []
        for number in range(args.rounds):
            others.append(taken_by_others())
            flops.append(2 * SGEMM_SIZE**3 / matrices.seconds())
            for side, runner in sides.items():
                rounds[side].append(runner.rate())
            figures = ", ".join(f"{side} {rates[-1]:.2f}" for side, rates in rounds.items())
            machine = f"sgemm {flops[-1] / 1e9:.0f} GFLOP/s, others took {100 * others[-1]:.0f} %"
            say(f"round {number + 1}, {what}: {figures} img/s; {machine}")
    return {"images_per_second": rounds, "sgemm": flops, "taken_by_others": others, "facts": found}


def peak_of(command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"error: {shlex.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return 1024 * usage.ru_maxrss


def memory_of_training(args, job):
    training = Senet(args.senet, job("senet", "train", MEMORY_STEPS - WARM_UP))  # five with those that do not count
    with Worker(job("eager", "memory")) as worker:
        theirs = worker.facts
    ours = {"loaded": peak_of([args.senet, "doctor", "--json"]), "peak": peak_of(training.command)}
    return {"senet": ours, "eager": theirs}


def measured(args, name):
    summary, job = jobs_for(args, name)
    found = {key: summary[key] for key in ("input", "macs")} | {"parameters": summary["params"]["trainable"]}
    found |= {"batch_size": BATCH_SIZES[name], "speed": {}}
    for what in args.what:
        found["speed"][what] = speeds(args, what, summary, job)
    if "train" in args.what:
        found["memory"] = memory_of_training(args, job)
    return found


def cpu_model():
    return re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1]


def setting(args):
    """What the figures depend on besides the network."""
    doctor = {check["subject"]: check["found"] for check in json.loads(output([args.senet, "doctor", "--json"]))}
    return {
        "cpu": cpu_model(),
        "threads": args.threads,
        "rounds": args.rounds,
        "steps": args.steps,
        # `senet --version`, and the commit it was built from.
        "versions": {"senet": doctor["senet"], "Python": platform.python_version()}
        | {library: version(library) for library in LIBRARIES},
        "command": f"scripts/compare_peers.py {shlex.join(sys.argv[1:])}".strip(),
    }


# ---- Tables ----


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def span(figures, form):
    return f"{form(min(figures))}–{form(max(figures))}"


def title(peer, what, facts):
    name = PEERS[what][peer].format(library="timm" if facts["source"].startswith("timm") else "PyTorch")
    if facts.get("precision", "f32") != "f32":
        # Its error in proportion to how outputs differ from image to image.
        name += f", {facts['precision']} by its default here, outputs {100 * facts['relative_error']:.0f} % off"
    return name


def speed_row(side, what, found):
    speed = found["speed"][what]
    rates, ours = speed["images_per_second"][side], speed["images_per_second"]["senet"]
    name, ratio, ratios = side, "", ""
    if side != "senet":
        each = [our / their for our, their in zip(ours, rates)]
        name = title(side, what, speed["facts"][side])
        ratio, ratios = f"{statistics.median(each):.2f}", span(each, "{:.2f}".format)
    passes = 3 if what == "train" else 1
    flops = statistics.median(rates) * 2 * found["macs"] * passes
    share = f"{100 * flops / statistics.median(speed['sgemm']):.0f} %"
    return f"| {name} | {number(statistics.median(rates))} | {span(rates, number)} | {ratio} | {ratios} | {share} |"


def speed_table(what, found):
    lines = [
        f"| {TITLES[what]} | images a second | min–max | senet / peer | min–max | share of sgemm |",
        "|---|---|---|---|---|---|",
    ]
    return lines + [speed_row(side, what, found) for side in found["speed"][what]["images_per_second"]]


def memory_table(found):
    lines = ["| memory of training, MiB | peak | libraries alone | difference |", "|---|---|---|---|"]
    for side, bytes_ in found["memory"].items():
        peak, loaded = (bytes_[key] / 2**20 for key in ("peak", "loaded"))
        name = side if side == "senet" else title(side, "train", bytes_)
        lines.append(f"| {name} | {peak:,.0f} | {loaded:,.0f} | {peak - loaded:,.0f} |")
    return lines


def network_notes(name, found, facts):
    size, count = found["input"][-1], found["batch_size"]
    sources = sorted({fact["source"] for fact in facts if "source" in fact})
    return [
        f"* {name}, images of {size} × {size}, batch {count}, float32: {found['parameters']:,} parameters, "
        f"{found['macs']:,} multiply-adds an image",
        *[f"* the peers' network: {source.replace('this file', 'scripts/golden.py')}" for source in sources],
    ]


def machine_notes(found, facts, around):
    rates = [rate / 1e9 for speed in found["speed"].values() for rate in speed["sgemm"]]
    others = max(share for speed in found["speed"].values() for share in speed["taken_by_others"])
    vectors = next(fact["vectors"] for fact in facts if "vectors" in fact)
    versions = ", ".join(f"{key} {value}" for key, value in around["versions"].items())
    return [
        f"* {around['cpu']}, {around['threads']} threads, {vectors}; sgemm {statistics.median(rates):.0f} GFLOP/s "
        f"({span(rates, '{:.0f}'.format)}); before a round others took {100 * others:.0f} % of the processors at most",
        f"* {versions}",
        f"* {around['rounds']} rounds of {around['steps']} steps, all sides in turns: `{around['command']}`",
    ]


def block(name, found, around):
    """A network's tables, below what they depend on."""
    facts = [fact for speed in found["speed"].values() for fact in speed["facts"].values()]
    notes = network_notes(name, found, facts) + machine_notes(found, facts, around)
    tables = [speed_table(what, found) for what in found["speed"]]
    if "memory" in found:
        tables.append(memory_table(found))
    return "\n\n".join("\n".join(lines) for lines in [notes, *tables])


def marked(name):
    head, foot = f"<!-- compare_peers {name} -->", "<!-- end of compare_peers -->"
    return re.compile(f"({re.escape(head)}\n).*?({re.escape(foot)})", re.DOTALL)


def replace(path, name, text):
    page = marked(name).sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", path.read_text())
    path.write_text(page)


# ---- The command ----


def words_of(known):
    def parse(text):
        words = text.split(",")
        unknown = [word for word in words if word not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return words

    return parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    networks, peers, whats = list(BATCH_SIZES), list(PEERS["eval"]), list(PEERS)
    parser.add_argument("--networks", type=words_of(networks), default=networks, help=",".join(networks))
    parser.add_argument("--peers", type=words_of(peers), default=peers, help=",".join(peers))
    parser.add_argument("--what", type=words_of(whats), default=whats, help=",".join(whats))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="timed steps a round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--senet", default=str(ROOT / "target/release/senet"))
    parser.add_argument("--into", type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.networks if args.into else []:
        # Now rather than after an hour.
        if not marked(name).search(args.into.read_text()):
            parser.error(f"{args.into} has no lines <!-- compare_peers {name} --> and <!-- end of compare_peers -->")
    return args


def main():
    args = arguments()
    if args.worker:
        work(Job(**json.loads(args.worker)))
        return
    around, networks = setting(args), {}
    for name in args.networks:
        networks[name] = measured(args, name)
        text = block(name, networks[name], around)
        print(f"## {name}\n\n{text}\n", flush=True)
        if args.into:
            replace(args.into, name, text)
        if args.json:
            args.json.write_text(json.dumps(around | {"networks": networks}, indent=1))


if __name__ == "__main__":
    main()
