from .folders import FlyingChairsDataModule as FlyingChairsDataModule
from .folders import KittiDataModule as KittiDataModule
from .folders import SintelDataModule as SintelDataModule
from .module import FlowDataModule as FlowDataModule
from .stereo import StereoPairDataModule as StereoPairDataModule
