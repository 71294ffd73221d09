"""A linear classifier of TF-IDF features on the reviews that the IMDb recipes train and validate on.

    python benchmarks/imdb_baseline.py IMDB/train.jsonl.xz

prints the validation accuracy with whole reviews, and with the last 256 bytes, which is what the recipes' models read.
"""

from __future__ import annotations

import argparse

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from perceiver_plugins.text import LabelledTextFilesDataModule


def texts_of(train_files: str, split: str, max_seq_len: int) -> tuple[list[str], list[int]]:
    """The last ``max_seq_len`` bytes of the texts of a split, and their labels."""
    data = LabelledTextFilesDataModule(
        train_files, target="class", val_fraction=0.1, max_seq_len=max_seq_len, truncation_side="left"
    )
    data.setup()
    examples = data.split_datasets[split]
    pairs = [examples[index] for index in range(len(examples))]
    decode = data.tokenizer.decode
    return [decode(input_ids, skip_special_tokens=True) for input_ids, _ in pairs], [int(label) for _, label in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train_files", help="the training reviews, with the columns text and label")
    options = parser.parse_args()
    for name, length in (("whole reviews", 2**15), ("the last 256 bytes", 256)):
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2), LogisticRegression(C=10)
        )
        model.fit(*texts_of(options.train_files, "train", length))
        accuracy = model.score(*texts_of(options.train_files, "validation", length))
        print(f"TF-IDF of words and pairs, logistic regression, {name}: validation accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
