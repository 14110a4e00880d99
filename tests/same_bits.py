"""Do two states of the code train the same weights and draw the same samples, to the last bit?

    python tests/same_bits.py 817013a            # a commit against this checkout
    python tests/same_bits.py --here             # only print the hashes of this checkout

Digits, 20 steps, float32, one thread, `compile` off: every layout with two contexts, one run on two processes,
one stopped and resumed.
Hashes differ from one processor to another, so both states are always run on this machine.
"""
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYOUTS, CONTEXTS = ('token', 'cell', 'subsample', 'scale', 'image', 'antidiagonal', 'haar'), ('random', 'clean')
QUICK = dict(steps=20, batch_size=16, log_every=5, save_every=10, sample_every=20, sample_steps=2, precision='float32',
             device='cpu', compile=False, dropout=.1, lr=1e-3)
SAMPLINGS = dict(euler=dict(sampler='euler'), sde=dict(sampler='sde'), sde2=dict(sampler='sde2'),
                 guided=dict(sampler='euler', guidance=1.5))


def digest(tensors):
    "The SHA-256 of tensors, by name."
    state = hashlib.sha256()
    for name in sorted(tensors):
        state.update(name.encode() + str(tensors[name].dtype).encode() + tensors[name].contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


def hashes_of(folder):
    "Of a run: its weights, their average, the optimizer's state, and images drawn by four samplers."
    import torch

    from xar_lab.checkpoints import read_tensors
    from xar_lab.runs import checkpoints
    from xar_lab.sampling import generate
    from xar_lab.training import load_run
    last = checkpoints(folder)[-1]
    found = {name: digest(read_tensors(last / f'{name}.safetensors')) for name in ('model', 'ema', 'optimizer')}
    model, _, _ = load_run(folder)
    for name, sampling in SAMPLINGS.items():
        out = generate(model, torch.tensor([3, 7]), steps=4, generator=torch.Generator().manual_seed(0), **sampling)
        found[name] = digest(dict(latents=out.latents))
    return found


def here():
    "The hashes of the code that Python imports."
    import torch

    from xar_lab.training import TrainConfig, train
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as runs:
        def quietly(follow=None, **values):
            with contextlib.redirect_stdout(io.StringIO()):
                return train(TrainConfig(runs_dir=runs, **QUICK | values), follow)
        for layout in LAYOUTS:
            for context in CONTEXTS:
                found[f'{layout}, {context}'] = hashes_of(quietly(name=f'{layout}-{context}', layout=layout,
                    context=context))
        quietly(lambda news: news['step'] >= 13, name='resumed')
        found['resumed at step 13'] = hashes_of(quietly(name='resumed'))
        config = Path(runs, 'two.json')
        config.write_text(json.dumps(dict(QUICK, name='two', runs_dir=runs)))
        from xar_lab.launch import free_port
        command = [Path(sys.executable).parent / 'torchrun', '--nproc_per_node', '2', '--master_port', str(free_port()),
                   '-m', 'xar_lab.training', config]
        subprocess.run(command, check=True, env=os.environ | dict(OMP_NUM_THREADS='1'), stdout=subprocess.DEVNULL)
        found['two processes'] = hashes_of(Path(runs, 'two'))
    return found


def hashes_at(checkout):
    "The hashes of the code in a folder."
    done = subprocess.run([sys.executable, __file__, '--here'], cwd=checkout,
                          env=os.environ | dict(PYTHONPATH=str(checkout), OMP_NUM_THREADS='1'), capture_output=True,
                          text=True)
    if done.returncode: sys.exit(f'{checkout}: {done.stderr[-3000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def main(commit):
    with tempfile.TemporaryDirectory() as before:
        subprocess.run(f'git archive {commit} | tar -x -C {before}', shell=True, check=True, cwd=ROOT)
        old, new = hashes_at(before), hashes_at(ROOT)
    different = [f'{run}: {key}' for run in old for key in old[run] if old[run][key] != new[run][key]]
    for run in old:
        print(f"{run:<28} weights {new[run]['model']}  samples {new[run]['euler']}  "
              f"{'same' if old[run] == new[run] else 'DIFFERENT'}")
    sys.exit('different: ' + ', '.join(different) if different else 0)


if __name__ == '__main__':
    if sys.argv[1:] == ['--here']: print(json.dumps(here()))
    elif len(sys.argv) == 2: main(sys.argv[1])
    else: sys.exit(__doc__)
