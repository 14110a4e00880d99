"Terms of the loss: trained, logged, resumed, shared by processes, and left out by whoever draws."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from xar_lab.build import build
from xar_lab.checkpoints import load_model, read_tensors
from xar_lab.config import TrainConfig
from xar_lab.core import seeded
from xar_lab.loss import batch_losses, draw
from xar_lab.runs import checkpoints
from xar_lab.state import load_run
from xar_lab.terms import TERMS, register_term
from xar_lab.training import train

TERM = '''
import torch
from torch import nn
from xar_lab.terms import register_term

class Mirrored(nn.Module):
    "The mean of the image, mirrored as training mirrors it, from a block; with a frozen helper that is no submodule."
    def __init__(self, config, layout, block=0):
        super().__init__()
        self.block, self.say, self.frozen = block, nn.Linear(config.width, 1), [nn.Linear(8, 1)]
        for p in self.frozen[0].parameters(): nn.init.ones_(p)
    def prepare(self, images):
        assert not torch.is_grad_enabled()
        return self.frozen[0](images[:, 0]).mean((1, 2))
    def forward(self, inside):
        return (self.say(inside.hidden[self.block]).mean((1, 2)) - inside.prepared).square().mean()

register_term('mirrored', Mirrored)
'''
QUICK = dict(steps=6, batch_size=16, log_every=2, sample_every=6, save_every=3, sample_steps=1, flip=True, keep=5)


@pytest.fixture
def term(tmp_path, monkeypatch):
    "A module of somebody else's, which registers a term."
    (tmp_path / 'their_terms.py').write_text(TERM)
    monkeypatch.syspath_prepend(tmp_path)
    yield 'their_terms'
    if 'mirrored' in TERMS: del TERMS['mirrored']
    sys.modules.pop('their_terms', None)


def trained(folder, name, module, follow=None, **values):
    terms = {'mirrored': {'weight': .5}, 'late': {'kind': 'mirrored', 'block': 3}}
    told = QUICK | dict(name=name, runs_dir=str(folder), terms=terms, uses=[module]) | values
    return train(TrainConfig(**told), follow)


def test_terms_are_trained_logged_resumed_and_left_out(tmp_path, term):
    whole = trained(tmp_path / 'runs', 'whole', term)
    rows = [json.loads(line) for line in (whole / 'metrics.jsonl').read_text().splitlines()]
    assert all(row['term_mirrored'] > 0 and row['term_late'] > 0 for row in rows) and len(rows) == 3

    trained(tmp_path / 'runs', 'parts', term, lambda news: news['step'] >= 3)
    parts = trained(tmp_path / 'runs', 'parts', term)
    for name in ('model', 'ema', 'optimizer'):                                         # resumed to the bit
        a, b = (read_tensors(checkpoints(run)[-1] / f'{name}.safetensors') for run in (whole, parts))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        assert any('terms.late.say.weight' in key for key in a) and not any('frozen' in key for key in a)
    first = read_tensors(checkpoints(whole)[0] / 'model.safetensors')['terms.late.say.weight']
    assert not torch.equal(first, read_tensors(checkpoints(whole)[-1] / 'model.safetensors')['terms.late.say.weight'])

    del TERMS['mirrored']                                                              # nobody knows the term
    model = load_model(checkpoints(whole)[-1] / 'ema.safetensors')
    assert not any('terms' in key for key in model.state_dict())
    code = (f"import sys; from xar_lab.state import load_run; load_run({str(whole)!r}); "
            "sys.exit('their_terms' in sys.modules)")
    env = os.environ | dict(PYTHONPATH=str(Path(__file__).parent.parent))
    assert subprocess.run([sys.executable, '-c', code], cwd=tmp_path / 'runs', env=env).returncode == 0
    assert load_run(whole)[2].terms['late'] == {'kind': 'mirrored', 'block': 3}
    again = build(TrainConfig(**QUICK, init_from=str(whole)))                          # and it can be started from
    assert set(again.started.values()) == {'kept'}


def test_gradients_and_first_weights(term):
    __import__(term)
    terms = {'mirrored': {'weight': .5}, 'late': {'kind': 'mirrored', 'block': 3}}
    for more in ({}, dict(activation_checkpointing=True), dict(context='clean', layout='scale')):
        plain, parts = (build(TrainConfig(**QUICK | dict(terms=t, init='published') | more)) for t in ({}, terms))
        for name, p in plain.model.named_parameters():                                 # the same with and without
            assert torch.equal(p, dict(parts.model.named_parameters())[name]), name
        parts.model.recompute = parts.config.activation_checkpointing
        images = torch.stack([parts.dataset[i][0] for i in range(4)])
        labels = torch.tensor([parts.dataset[i][1] for i in range(4)])
        draws = draw(parts, 0, range(4))
        late, read = parts.model.terms['late'], []
        prepare = late.prepare
        late.prepare = lambda images: (read.append(images), prepare(images))[1]
        looked, forward, made = [], late.forward, []
        late.forward = lambda inside: (looked.append(inside), forward(inside))[1]
        for block in parts.model.blocks: block.register_forward_hook(lambda _, x, out: made.append(out.flatten(1, 2)))
        minimised, losses = batch_losses(parts, parts.model, images, labels, draws)
        assert all(torch.equal(a, b) for a, b in zip(looked[0].hidden, made, strict=True))
        torch.testing.assert_close(minimised, losses['loss'] + .5 * losses['mirrored'] + losses['late'])
        torch.testing.assert_close(losses['loss'], batch_losses(plain, plain.model, images, labels, draws)[0])
        seen = torch.where(draws.flip.view(-1, 1, 1, 1), images.flip(-1), images)
        assert draws.flip.any() and not draws.flip.all()
        minimised.backward()
        for name, p in parts.model.named_parameters():
            assert p.grad is not None and p.grad.any() or 'bias' in name, name
        assert len(read) == 1 and torch.equal(read[0], seen)                        # as training mirrors them


@pytest.mark.slow
def test_two_processes_train_the_same_terms(tmp_path, term):
    one = trained(tmp_path / 'runs', 'one', term, micro_batch=8)
    config = dict(QUICK, name='two', runs_dir=str(tmp_path / 'runs'), uses=[term],
                  terms={'mirrored': {'weight': .5}, 'late': {'kind': 'mirrored', 'block': 3}})
    (tmp_path / 'two.json').write_text(json.dumps(config))
    from xar_lab.launch import free_port
    command = [Path(sys.executable).parent / 'torchrun', '--nproc_per_node', '2', '--master_port', str(free_port()),
               '-m', 'xar_lab.training', tmp_path / 'two.json']
    root = Path(__file__).parent.parent
    subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL,
                   env=os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=f'{root}:{tmp_path}'))
    a, b = (read_tensors(checkpoints(run)[-1] / 'model.safetensors') for run in (one, tmp_path / 'runs' / 'two'))
    for name in a: torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
    last = lambda run: json.loads((tmp_path / 'runs' / run / 'metrics.jsonl').read_text().splitlines()[-1])
    rows = [last(run) for run in ('one', 'two')]
    assert abs(rows[0]['term_late'] - rows[1]['term_late']) < 1e-3 * rows[0]['term_late']


def test_what_is_wrong_shows_in_one_line_before_work(tmp_path):
    def refused(message, **spec):
        with pytest.raises(ValueError, match=message) as e:
            train(TrainConfig(**QUICK, name='bad', runs_dir=str(tmp_path), terms=dict(bad=spec)))
        assert '\n' not in str(e.value) and not (tmp_path / 'bad').exists()

    class Term(nn.Module):
        def __init__(self, config, layout, gives=None): super().__init__(); self.gives = gives
        def forward(self, inside):
            return dict(nan=inside.t.mean() / 0 * 0, vector=inside.t.mean(1), three=3.)[self.gives]

    refused("unknown term 'bad'; known: ")
    register_term('bad', Term)
    refused("term 'bad' gives nan for the first images", gives='nan')
    refused(r"term 'bad' must give one number, a scalar tensor, got torch.float32 \[2\]", gives='vector')
    refused("term 'bad' must give one number, a scalar tensor, got 3.0", gives='three')
    refused("its options: config, layout, gives", depth=3)
    refused("terms must be a dict of terms", weight=0)
    del TERMS['bad']
    with seeded('nothing'): assert build(TrainConfig(**QUICK)).model.terms.keys() == set()
