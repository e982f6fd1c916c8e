import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.shapes import BATCH_BUCKETS, SEQUENCE_BUCKETS, bucket, sequence_buckets


@given(st.integers(0, SEQUENCE_BUCKETS[-1]))
def test_the_bucket_is_the_smallest_that_holds_the_size(size):
    found = bucket(size, SEQUENCE_BUCKETS)
    assert size <= found
    assert all(smaller < size for smaller in SEQUENCE_BUCKETS if smaller < found)


def test_a_size_beyond_all_buckets_is_refused():
    with pytest.raises(ValueError, match="33 is beyond the largest bucket, 32"):
        bucket(33, BATCH_BUCKETS)


@pytest.mark.parametrize(
    ("longest", "expected"), [(8, (8,)), (16, (16,)), (64, (16, 32, 64)), (100, (16, 32, 64, 100))]
)
def test_sequence_buckets_end_at_the_longest_sequence(longest, expected):
    assert sequence_buckets(longest) == expected
