from .midi_files import Midi as Midi
from .midi_files import read_midi as read_midi
from .midi_files import write_midi as write_midi
from .notes import Notes as Notes
from .tokens import MidiTokenizer as MidiTokenizer
