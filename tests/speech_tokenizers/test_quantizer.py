"""The codebook: nearest entries by brute force, gradients, and the moving means by hand."""

import pytest
import torch
from torch.nn import functional

from aligncap.tokenizers.encoder import VectorQuantizer


def quantizer(width: int = 6, size: int = 16, code_width: int = 4) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(width, size, code_width)


def test_each_vector_gets_the_nearest_entry():
    book = quantizer().eval()
    x, heard = torch.randn(3, 7, 6), torch.ones(3, 7)
    out, codes, commitment = book(x, heard)
    vectors = functional.layer_norm(book.enter(x), (4,))
    distances = torch.cdist(vectors.flatten(0, 1), book.codebook)
    assert codes.flatten().tolist() == distances.argmin(1).tolist()
    torch.testing.assert_close(out, book.leave(book.codebook[codes]))
    torch.testing.assert_close(commitment, distances.min(1).values.square().mean() / 4)


def test_padding_does_not_count_in_the_commitment():
    book = quantizer().eval()
    x, heard = torch.randn(1, 5, 6), torch.tensor([[1.0, 1, 1, 0, 0]])
    torch.testing.assert_close(book(x, heard)[2], book(x[:, :3], heard[:, :3])[2])


def test_the_gradient_passes_straight_through():
    """Rounded or not, the projection in front gets the same gradient."""
    x, heard, slope = torch.randn(2, 5, 6), torch.ones(2, 5), torch.randn(2, 5, 6)
    gradients = []
    for rounding in (True, False):
        book = quantizer().eval()
        (book(x, heard, rounding=rounding)[0] * slope).sum().backward()
        gradients.append(book.enter.weight.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


def test_without_rounding_the_vectors_pass_as_they_are():
    book = quantizer().eval()
    x, heard = torch.randn(1, 3, 6), torch.ones(1, 3)
    expected = book.leave(functional.layer_norm(book.enter(x), (4,)))
    torch.testing.assert_close(book(x, heard, rounding=False)[0], expected)


def test_entries_move_to_the_running_mean_of_their_vectors():
    book = quantizer(size=2, code_width=2)
    book.codebook.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    book.sums.copy_(book.codebook)
    vectors = torch.tensor([[2.0, 0.0], [4.0, -2.0]])
    book._update_codebook(vectors, torch.tensor([0, 0]))
    # counts: 0.98 * 1 + 0.02 * 2 and 0.98 * 1; sums: 0.98 * old + 0.02 * (6, -2) and 0.98 * old.
    torch.testing.assert_close(book.counts, torch.tensor([1.02, 0.98]))
    torch.testing.assert_close(book.sums, torch.tensor([[1.10, -1.02], [-0.98, 0.98]]))
    torch.testing.assert_close(book.codebook[0], torch.tensor([1.10, -1.02]) / 1.021)


def test_an_entry_fed_the_same_vector_converges_to_it():
    book = quantizer(size=2, code_width=2)
    for _ in range(600):
        book._update_codebook(
            torch.tensor([[0.3, 0.7]]).repeat(8, 1), torch.zeros(8, dtype=torch.int64)
        )
    torch.testing.assert_close(book.codebook[0], torch.tensor([0.3, 0.7]), atol=1e-3, rtol=0)


def test_entries_nobody_chooses_are_given_a_vector_that_was_heard():
    book = quantizer(size=4, code_width=2)
    book.counts.copy_(torch.tensor([1.0, 0.05, 1.0, 1.0]))
    vectors = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    book._update_codebook(vectors, torch.tensor([0, 0]))
    assert book.codebook[1].tolist() in vectors.tolist()
    assert book.counts[1] == 1.0
    torch.testing.assert_close(book.sums[1], book.codebook[1])
    assert all(entry not in vectors.tolist() for entry in book.codebook[2:].tolist())


@pytest.mark.parametrize("training", [True, False])
def test_the_codebook_moves_in_training_only_and_not_by_padding(training):
    book = quantizer().train(training)
    before = book.codebook.clone()
    x = torch.randn(1, 6, 6)
    heard = torch.tensor([[1.0, 1, 1, 0, 0, 0]])
    book(x, heard)
    assert torch.equal(before, book.codebook) is not training
    other = quantizer().train(training)
    x[:, 3:] = 100.0
    other(x, heard)
    torch.testing.assert_close(book.codebook, other.codebook)
