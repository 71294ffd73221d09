from .arrays import CIFAR10DataModule as CIFAR10DataModule
from .arrays import DigitsDataModule as DigitsDataModule
from .arrays import FashionMNISTDataModule as FashionMNISTDataModule
from .arrays import MNISTDataModule as MNISTDataModule
from .folders import ImageFolderDataModule as ImageFolderDataModule
from .hub import HubImagesDataModule as HubImagesDataModule
from .hub import ImageNetDataModule as ImageNetDataModule
from .module import ImageDataModule as ImageDataModule
