"nbs/train_autoencoder.ipynb as papermill runs it, with codes, and a run that trains on them."
import json

import pytest
from conftest import papermill, printed, refused

from xar_lab.autoencoder import autoencoder_facts
from xar_lab.build import build
from xar_lab.config import TrainConfig
from xar_lab.training import train

@pytest.fixture(scope='module')
def codes(tmp_path_factory):
    "A folder with an autoencoder of codes, trained for a few steps, and the executed notebook."
    here = tmp_path_factory.mktemp('autoencoder')
    done = papermill('train_autoencoder', here / 'out.ipynb', kind='vq', dataset='digits', folder=here / 'codes',
                     widths=[16, 32], codes=32, steps=40, count=100, references=2)
    assert done.returncode == 0, done.stderr
    return here / 'codes', here / 'out.ipynb'


def test_an_autoencoder_of_codes_is_judged_and_described(codes):
    folder, notebook = codes
    facts = autoencoder_facts(folder)
    assert (facts['kind'], facts['codes'], facts['dataset']) == ('vq', 32, 'digits')
    assert facts['codes_used'] > 24 and 1 < facts['held_out']['perplexity'] <= facts['held_out']['codes_used'] <= 32
    assert facts['psnr'] > 11.5 and 'psnr_sample' not in facts and set(facts['fd']) == {'originals', 'from the codes'}
    said = ''.join(printed(notebook))
    assert f"{facts['held_out']['codes_used']} of 32 codes are used on these images" in said
    assert f'-p flow codes -p codec vq -y "codec_options: {{folder: {folder}}}"' in said
    outputs = json.dumps([c.get('outputs') for c in json.loads(notebook.read_text())['cells']])
    assert outputs.count('image/png') == 2 and '| PSNR, dB |  |' in outputs


def test_a_run_trains_on_its_codes(codes, tmp_path):
    config = TrainConfig(flow='codes', codec_options={'folder': str(codes[0])}, steps=3, name='codes',
                         runs_dir=str(tmp_path))
    parts = build(config)
    assert parts.flow.channels == len(parts.codec.codebook) == parts.model.config.said == 32
    assert parts.codec.factor == autoencoder_facts(codes[0])['factor'] == parts.config.factor
    train(config)
    assert len((tmp_path / 'codes' / 'metrics.jsonl').read_text().splitlines()) >= 1


def test_a_bad_kind_ends_before_the_training():
    assert "kind must be one of kl, vq, got 'gan'" in refused('train_autoencoder', kind='gan', dataset='digits')
